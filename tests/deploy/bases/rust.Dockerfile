# Stands in for rust:1-slim-bookworm where no registry is to be had: Debian with the newest Rust that it has.
FROM pgweir-base:bookworm
RUN echo 'deb http://deb.debian.org/debian-security bookworm-security main' >>/etc/apt/sources.list \
    && apt-get update -qq \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
         cargo-web gcc libc6-dev ca-certificates >/dev/null
# This machine's, so that crates come through a proxy that has an authority of its own, too.
COPY ca-certificates.crt /etc/ssl/certs/
