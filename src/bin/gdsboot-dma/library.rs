//! Libraries that are loaded at run time, whose functions may be missing one by one.

use gdsboot::bench::worker::Failure;

/// Present in the libraries that imitate NVIDIA's for tests, and in no others.
const SIMULATED: &[u8] = b"gdsboot_simulated";

/// A library. It stays loaded until the process ends: libcufile may crash when it is unloaded.
pub struct Library {
    library: &'static libloading::Library,
}

impl Library {
    /// Loads it.
    #[allow(unsafe_code, reason = "loading a library runs its constructors")]
    pub fn open(name: &str) -> Result<Self, Failure> {
        // SAFETY: NVIDIA's libraries are made to be loaded at run time; this program has one thread when it loads them, and
        // nothing that their constructors could break.
        match unsafe { libloading::Library::new(name) } {
            Ok(library) => Ok(Self { library: Box::leak(Box::new(library)) }),
            Err(error) => Err(Failure {
                function: Some(name.to_owned()),
                text: words(&error),
                missing: true,
                ..Failure::default()
            }),
        }
    }

    /// A function by the first of its names that the library has.
    ///
    /// # Safety
    /// `F` is the type that the vendor's header declares for it.
    #[allow(unsafe_code, reason = "a symbol has no type")]
    pub unsafe fn function<F: Copy>(&self, names: &[&str]) -> Option<F> {
        // SAFETY: the caller names the right type, and the library is never unloaded.
        names
            .iter()
            .find_map(|name| unsafe { self.library.get::<F>(name.as_bytes()) }.ok().map(|symbol| *symbol))
    }

    /// Does it only imitate NVIDIA's library?
    pub fn is_simulated(&self) -> bool {
        is_simulated(self.library)
    }
}

/// Does it only imitate NVIDIA's library?
#[allow(unsafe_code, reason = "a symbol has no type")]
pub fn is_simulated(library: &libloading::Library) -> bool {
    // SAFETY: the symbol's address is all that is asked for.
    unsafe { library.get::<*const u8>(SIMULATED) }.is_ok()
}

/// A library that has no function of that name.
pub fn missing(function: &str) -> Failure {
    Failure {
        function: Some(function.to_owned()),
        text: "the library has no such function".into(),
        missing: true,
        ..Failure::default()
    }
}

/// The loader's words, without the crate's own around them.
pub fn words(error: &libloading::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => source.to_string(),
        None => error.to_string(),
    }
}

/// A table of a library's functions. Each becomes an unsafe method of its name that answers with a [`Failure`] where the
/// library lacks it; in brackets stand the symbols that it may have, the newest first.
macro_rules! functions {
    ($($name:ident [$($symbol:literal),+] ($($argument:ident: $type:ty),*) -> $result:ty;)+) => {
        #[derive(Clone, Copy)]
        struct Functions {
            $($name: Option<unsafe extern "C" fn($($type),*) -> $result>,)+
        }

        #[allow(unsafe_code, reason = "functions of a C library")]
        impl Functions {
            fn load(library: &crate::library::Library) -> Self {
                // SAFETY: the table repeats the vendor's header.
                Self { $($name: unsafe { library.function(&[$($symbol),+]) },)+ }
            }

            $(
                #[allow(clippy::too_many_arguments, reason = "the vendor's")]
                unsafe fn $name(&self, $($argument: $type),*) -> Result<$result, gdsboot::bench::worker::Failure> {
                    let function = self.$name.ok_or_else(|| crate::library::missing([$($symbol),+][0]))?;
                    // SAFETY: the caller keeps what the vendor's header asks for.
                    Ok(unsafe { function($($argument),*) })
                }
            )+
        }
    };
}
pub(crate) use functions;
