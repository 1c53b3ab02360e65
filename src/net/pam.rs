//! Asks PAM (pluggable authentication modules) whether a user's password is right, as the service `pgbouncer`: what that
//! means stands in `/etc/pam.d/pgbouncer`.
//!
//! libpam is loaded when it is first needed, so that the program starts and builds on machines without it. Its
//! constants are those of Linux-PAM, and so is the name under which it is looked for: other systems have other ones.

#![expect(unsafe_code, reason = "libpam is a C library, and has no other interface")]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use nix::libc;
use tokio::sync::{Semaphore, oneshot};
use zeroize::Zeroizing;

/// PgBouncer's, so that its configuration goes on to work.
const SERVICE: &CStr = c"pgbouncer";
const LIBRARY: &CStr = c"libpam.so.0";

/// Modules are not all made for threads, so they are asked one thing at a time, as PgBouncer does it.
static ONE_AT_A_TIME: Semaphore = Semaphore::const_new(1);

/// Why a user was not let in. For the log: to the client all of them are the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PamError {
    /// There is no libpam.
    #[error("PAM is not available: {0}")]
    NotAvailable(String),
    /// A user name or password with a zero byte.
    #[error("user name or password with a zero byte")]
    ZeroByte,
    /// One of libpam's functions failed, as a rule because the password is wrong.
    #[error("{function}() failed: {message}")]
    Failed {
        /// Which one.
        function: &'static str,
        /// What libpam says.
        message: String,
    },
    /// The thread ended without a result.
    #[error("PAM authentication was broken off")]
    BrokenOff,
}

/// Whether there is a libpam.
pub fn available() -> Result<(), PamError> {
    Library::get().map(drop)
}

/// Whether PAM knows this user by this password, and lets him in at this time. `remote` is where he comes from, for the
/// modules to see. Takes as long as the modules do, on a thread of its own; may be dropped at any time, but the modules
/// go on to the end.
pub async fn authenticate(user: &str, password: &str, remote: &str) -> Result<(), PamError> {
    Attempt::new(user, password, remote)?.judge(*Library::get()?).await
}

/// What the modules are to judge.
struct Attempt {
    user: CString,
    /// Ends in a zero byte, which is its only one.
    password: Zeroizing<Vec<u8>>,
    remote: CString,
}

impl Attempt {
    fn new(user: &str, password: &str, remote: &str) -> Result<Self, PamError> {
        let text = |text: &str| CString::new(text).map_err(|_| PamError::ZeroByte);
        let password = Zeroizing::new(text(password)?.into_bytes_with_nul());
        Ok(Self { user: text(user)?, password, remote: text(remote)? })
    }

    /// Has the modules judge in a thread of its own. Not one of the runtime's: a module that hangs must not keep the
    /// program from ending.
    async fn judge(self, library: Library) -> Result<(), PamError> {
        let permit = ONE_AT_A_TIME.acquire().await.map_err(|_| PamError::BrokenOff)?;
        let (sender, receiver) = oneshot::channel();
        let judge = move || {
            let result = self.run(&library);
            drop(permit);
            let _ = sender.send(result);
        };
        let thread = std::thread::Builder::new().name("pam".to_owned());
        thread.spawn(judge).map_err(|error| PamError::NotAvailable(error.to_string()))?;
        receiver.await.unwrap_or(Err(PamError::BrokenOff))
    }

    fn run(&self, library: &Library) -> Result<(), PamError> {
        let conversation = Conversation { answer, password: self.password.as_ptr().cast() };
        let mut handle = ptr::null_mut();
        // SAFETY: The strings end in a zero byte. They, the conversation and the password to which it points live until
        // the end of this function, longer than the handle, which libpam writes here.
        let code =
            unsafe { (library.start)(SERVICE.as_ptr(), self.user.as_ptr(), &conversation, &mut handle) };
        library.check("pam_start", ptr::null_mut(), code)?;
        let mut session = Session { library, handle, code };
        let remote = self.remote.as_ptr().cast();
        // SAFETY: For these calls the handle is open, as the session is; libpam copies the string.
        unsafe {
            session.check("pam_set_item", (library.set_item)(handle, RHOST, remote))?;
            session.check("pam_authenticate", (library.authenticate)(handle, SILENT))?;
            session.check("pam_acct_mgmt", (library.acct_mgmt)(handle, SILENT))
        }
    }
}

/// An open handle.
struct Session<'a> {
    library: &'a Library,
    handle: *mut Handle,
    /// How the last call went, which modules are told at the end.
    code: c_int,
}

impl Session<'_> {
    fn check(&mut self, function: &'static str, code: c_int) -> Result<(), PamError> {
        self.code = code;
        self.library.check(function, self.handle, code)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: pam_start() has opened the handle, and nobody uses it from here on.
        unsafe { (self.library.end)(self.handle, self.code) };
    }
}

// From here on it is <security/pam_appl.h> of Linux-PAM.

const SUCCESS: c_int = 0;
const BUFFER_ERROR: c_int = 5;
const CONVERSATION_ERROR: c_int = 19;
const SILENT: c_int = 0x8000;
const RHOST: c_int = 4;
const PROMPT_ECHO_OFF: c_int = 1;
const MAX_MESSAGES: c_int = 32;

/// `pam_handle_t`.
#[repr(C)]
struct Handle {
    _private: [u8; 0],
}

/// `struct pam_message`.
#[repr(C)]
struct Message {
    style: c_int,
    text: *const c_char,
}

/// `struct pam_response`.
#[repr(C)]
struct Response {
    text: *mut c_char,
    _unused: c_int,
}

/// `struct pam_conv`.
#[repr(C)]
struct Conversation {
    answer: unsafe extern "C" fn(c_int, *const *const Message, *mut *mut Response, *const c_char) -> c_int,
    /// What modules may ask for; C's `appdata_ptr`.
    password: *const c_char,
}

/// Answers what modules ask. Only one question has an answer, that for the password.
///
/// # Safety
///
/// libpam calls it: `messages` are `count` pointers, `responses` can be written to, `password` is that of the
/// [`Conversation`].
unsafe extern "C" fn answer(
    count: c_int,
    messages: *const *const Message,
    responses: *mut *mut Response,
    password: *const c_char,
) -> c_int {
    if !(1..=MAX_MESSAGES).contains(&count) || messages.is_null() || responses.is_null() {
        return CONVERSATION_ERROR;
    }
    let count = count as usize;
    // SAFETY: No condition. libpam gives the memory back by free(); zeros are no answer.
    let answers = unsafe { libc::calloc(count, size_of::<Response>()) }.cast::<Response>();
    if answers.is_null() {
        return BUFFER_ERROR;
    }
    for i in 0..count {
        // SAFETY: There are `count` messages and answers, and the password ends in a zero byte. libpam gives the copy
        // back by free(); should there be no memory for it, no answer is what the module gets.
        unsafe {
            if (**messages.add(i)).style == PROMPT_ECHO_OFF {
                (*answers.add(i)).text = libc::strdup(password);
            }
        }
    }
    // SAFETY: The caller lets us write there.
    unsafe { *responses = answers };
    SUCCESS
}

type Start =
    unsafe extern "C" fn(*const c_char, *const c_char, *const Conversation, *mut *mut Handle) -> c_int;

/// libpam's functions.
#[derive(Clone, Copy)]
struct Library {
    start: Start,
    set_item: unsafe extern "C" fn(*mut Handle, c_int, *const c_void) -> c_int,
    authenticate: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    acct_mgmt: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    end: unsafe extern "C" fn(*mut Handle, c_int) -> c_int,
    strerror: unsafe extern "C" fn(*mut Handle, c_int) -> *const c_char,
}

impl Library {
    /// The library, loaded at the first call.
    fn get() -> Result<&'static Self, PamError> {
        static LOADED: OnceLock<Result<Library, String>> = OnceLock::new();
        LOADED.get_or_init(Self::load).as_ref().map_err(|error| PamError::NotAvailable(error.clone()))
    }

    fn load() -> Result<Self, String> {
        // SAFETY: The name ends in a zero byte. What libpam does when it is loaded is as trustworthy as the library
        // itself, which the administrator has installed. It stays loaded.
        let library = unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return Err(last_error());
        }
        // SAFETY: The types of the fields are those of <security/pam_appl.h>.
        unsafe {
            Ok(Self {
                start: symbol(library, c"pam_start")?,
                set_item: symbol(library, c"pam_set_item")?,
                authenticate: symbol(library, c"pam_authenticate")?,
                acct_mgmt: symbol(library, c"pam_acct_mgmt")?,
                end: symbol(library, c"pam_end")?,
                strerror: symbol(library, c"pam_strerror")?,
            })
        }
    }

    fn check(&self, function: &'static str, handle: *mut Handle, code: c_int) -> Result<(), PamError> {
        if code == SUCCESS {
            return Ok(());
        }
        // SAFETY: Linux-PAM does not look at the handle; it returns a string of its own that stays as it is.
        let message = unsafe { CStr::from_ptr((self.strerror)(handle, code)) };
        Err(PamError::Failed { function, message: message.to_string_lossy().into_owned() })
    }
}

/// A function of a loaded library.
///
/// # Safety
///
/// `F` has to be the type of a pointer to the function.
unsafe fn symbol<F: Copy>(library: *mut c_void, name: &CStr) -> Result<F, String> {
    const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
    // SAFETY: The library is loaded, and the name ends in a zero byte.
    let address = unsafe { libc::dlsym(library, name.as_ptr()) };
    if address.is_null() {
        return Err(last_error());
    }
    // SAFETY: The caller says so, and the sizes are equal.
    Ok(unsafe { std::mem::transmute_copy(&address) })
}

/// What the dynamic linker says about the last failure in this thread.
fn last_error() -> String {
    // SAFETY: The string is the thread's, until its next call of the linker.
    let error = unsafe { libc::dlerror() };
    if error.is_null() {
        return "the dynamic linker gives no reason".to_owned();
    }
    // SAFETY: It is not null, so it is a string.
    unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in place of `/etc/pam.d` here.
    static FOLDER: OnceLock<CString> = OnceLock::new();

    type StartConfdir = unsafe extern "C" fn(
        *const c_char,
        *const c_char,
        *const Conversation,
        *const c_char,
        *mut *mut Handle,
    ) -> c_int;

    /// pam_start_confdir(), which Linux-PAM has since 1.4.
    fn start_confdir() -> Option<StartConfdir> {
        Library::get().ok()?;
        // SAFETY: The library is there, and the type is that of <security/pam_appl.h>.
        unsafe { symbol(libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW), c"pam_start_confdir").ok() }
    }

    /// pam_start(), but for the folder that it reads.
    unsafe extern "C" fn start_here(
        service: *const c_char,
        user: *const c_char,
        conversation: *const Conversation,
        handle: *mut *mut Handle,
    ) -> c_int {
        let (start, folder) = (start_confdir().unwrap(), FOLDER.get().unwrap());
        // SAFETY: The arguments are those of the caller.
        unsafe { start(service, user, conversation, folder.as_ptr(), handle) }
    }

    /// Asks the modules of that folder.
    async fn ask(user: &str, password: &str, remote: &str) -> Result<(), PamError> {
        let library = Library { start: start_here, ..*Library::get().unwrap() };
        Attempt::new(user, password, remote).unwrap().judge(library).await
    }

    /// With modules that know one user, "joe", by his password, "se cret", if he comes from 10.0.0.1.
    #[tokio::test]
    async fn modules_decide() {
        if start_confdir().is_none() {
            return println!("skipped: no libpam, or an old one");
        }
        let folder = std::env::temp_dir().join(format!("pgweir-pam-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let check =
            r#"test "$PAM_USER/$PAM_RHOST/$PAM_SERVICE/$(tr -d '\000')" = "joe/10.0.0.1/pgbouncer/se cret""#;
        std::fs::write(folder.join("check"), check).unwrap();
        let check = folder.join("check");
        let rules = format!(
            "auth required pam_exec.so quiet expose_authtok /bin/sh {}\naccount required pam_permit.so\n",
            check.display()
        );
        std::fs::write(folder.join("pgbouncer"), &rules).unwrap();
        FOLDER.set(CString::new(folder.to_str().unwrap()).unwrap()).unwrap();

        assert_eq!(ask("joe", "se cret", "10.0.0.1").await, Ok(()));
        for (user, password, remote) in [
            ("joe", "secret", "10.0.0.1"),
            ("joe", "", "10.0.0.1"),
            ("jane", "se cret", "10.0.0.1"),
            ("joe", "se cret", "::1"),
        ] {
            let error = ask(user, password, remote).await.unwrap_err();
            assert!(error.to_string().starts_with("pam_authenticate() failed: "), "{error}");
        }
        std::fs::write(folder.join("pgbouncer"), rules.replace("pam_permit", "pam_deny")).unwrap();
        let error = ask("joe", "se cret", "10.0.0.1").await.unwrap_err();
        assert!(error.to_string().starts_with("pam_acct_mgmt() failed: "), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_the_question_for_the_password_is_answered() {
        let message = |style| Message { style, text: c"?".as_ptr() };
        let messages = [message(2), message(PROMPT_ECHO_OFF), message(3)];
        let pointers = messages.each_ref().map(ptr::from_ref);
        let mut responses = ptr::null_mut();
        // SAFETY: As many messages as are announced, and what comes back is freed as libpam would.
        unsafe {
            assert_eq!(answer(3, pointers.as_ptr(), &mut responses, c"pw".as_ptr()), SUCCESS);
            assert!((*responses).text.is_null());
            assert_eq!(CStr::from_ptr((*responses.add(1)).text), c"pw");
            assert!((*responses.add(2)).text.is_null());
            libc::free((*responses.add(1)).text.cast());
            libc::free(responses.cast());
            assert_eq!(answer(0, pointers.as_ptr(), &mut responses, c"pw".as_ptr()), CONVERSATION_ERROR);
        }
    }

    #[tokio::test]
    async fn zero_bytes_are_refused() {
        if available().is_ok() {
            assert_eq!(authenticate("joe", "a\0b", "::1").await, Err(PamError::ZeroByte));
        }
    }
}
