//! Counts steps: work that comes out the same each time, which time does not. A step is an edge of the program taken (the
//! compiler's coverage pass has each of them call a function), or 16 bytes that the C library copies, fills, or finds to be
//! equal. What the standard library does by itself is not counted.
//!
//! `scripts/fuzz` has the linker turn those calls here (`--wrap`).

use std::arch::global_asm;
use std::ffi::{c_int, c_void};
use std::sync::atomic::Ordering;

use crate::cost::STEPS;

// A function of Rust's would be counted itself, without end.
#[cfg(target_arch = "x86_64")]
global_asm!(
    ".globl __wrap___sanitizer_cov_trace_pc",
    "__wrap___sanitizer_cov_trace_pc:",
    "inc qword ptr [rip + {steps}]",
    "ret",
    steps = sym STEPS,
);
#[cfg(target_arch = "aarch64")]
global_asm!(
    ".globl __wrap___sanitizer_cov_trace_pc",
    "__wrap___sanitizer_cov_trace_pc:",
    "adrp x16, {steps}",
    "ldr x17, [x16, :lo12:{steps}]",
    "add x17, x17, #1",
    "str x17, [x16, :lo12:{steps}]",
    "ret",
    steps = sym STEPS,
);

/// Targets run in one thread.
fn count(bytes: usize) {
    STEPS.store(STEPS.load(Ordering::Relaxed) + bytes / 16, Ordering::Relaxed);
}

/// Functions of the C library's, and when all the bytes that one is given have been looked at.
macro_rules! counted {
    ($($real:ident, $wrap:ident($to:ty, $from:ty) -> $result:ty, $is_whole:expr;)*) => {$(
        unsafe extern "C" {
            fn $real(to: $to, from: $from, len: usize) -> $result;
        }

        #[unsafe(no_mangle)]
        unsafe extern "C" fn $wrap(to: $to, from: $from, len: usize) -> $result {
            // SAFETY: the caller keeps the contract, which is the same.
            let result = unsafe { $real(to, from, len) };
            if $is_whole(result) {
                count(len);
            }
            result
        }
    )*};
}
counted! {
    __real_memcpy, __wrap_memcpy(*mut c_void, *const c_void) -> *mut c_void, |_| true;
    __real_memmove, __wrap_memmove(*mut c_void, *const c_void) -> *mut c_void, |_| true;
    __real_memset, __wrap_memset(*mut c_void, c_int) -> *mut c_void, |_| true;
    __real_memcmp, __wrap_memcmp(*const c_void, *const c_void) -> c_int, |difference| difference == 0;
    __real_bcmp, __wrap_bcmp(*const c_void, *const c_void) -> c_int, |difference| difference == 0;
}
