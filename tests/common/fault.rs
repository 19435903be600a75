//! What was running when the process got a signal: the case, on standard error, before the process
//! ends.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::Once;
use std::{mem, ptr};

thread_local! {
    /// The text of the case that this thread runs, which the thread keeps alive.
    static CASE: Cell<(*const u8, usize)> = const { Cell::new((ptr::null(), 0)) };
}

/// Runs something; should it be ended by a signal, the text is printed.
pub fn named<T>(case: &str, run: impl FnOnce() -> T) -> T {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    let outer = CASE.replace((case.as_ptr(), case.len()));
    let value = run();
    CASE.set(outer);
    value
}

fn install() {
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGFPE, libc::SIGABRT] {
        // SAFETY: all fields of the structure may be zero.
        let mut action: libc::sigaction = unsafe { mem::zeroed() };
        action.sa_sigaction = report as *const () as usize;
        // The stack may be what is exhausted: Rust gives each of its threads another one for
        // signals.
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the handler has the signature that the flags ask for, and calls only what a
        // handler may.
        let done = unsafe { libc::sigaction(signal, &action, ptr::null_mut()) };
        assert_eq!(done, 0, "no handler for signal {signal}");
    }
}

/// Prints the address and the case, and lets the signal do what it does by itself.
extern "C" fn report(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let (text, len) = CASE.get();
    print(b"\nsignal ");
    print(&digits(signal as usize, 10));
    // SAFETY: the system gives the handler a valid structure; of other signals than faults the
    // field means nothing, but is there.
    let address = unsafe { (*info).si_addr() }.addr();
    print(b" at address 0x");
    print(&digits(address, 16));
    print(b" in\n");
    if !text.is_null() {
        // SAFETY: `named` is on this thread's stack and borrows the text.
        print(unsafe { std::slice::from_raw_parts(text, len) });
    }
    print(b"\n");
    // SAFETY: gives the signal its default action, which a handler may do. The instruction that
    // failed runs again when this returns, and ends the process.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

fn print(bytes: &[u8]) {
    // SAFETY: the slice is valid; `write` is allowed in handlers. Nobody is left to tell if it
    // fails.
    unsafe { libc::write(libc::STDERR_FILENO, bytes.as_ptr().cast(), bytes.len()) };
}

/// A number as text of a fixed width, without an allocation.
fn digits(mut number: usize, base: usize) -> [u8; 20] {
    let mut text = [b'0'; 20];
    for place in text.iter_mut().rev() {
        *place = b"0123456789abcdef"[number % base];
        number /= base;
    }
    text
}
