//! The shape of a door's table of errors.

/// Makes `Code` of a table: a name, the status, the code as it goes out, the message.
macro_rules! error_codes {
    ($($name:ident $status:literal $code:literal $message:literal;)*) => {
        /// What went wrong. Several may share what goes out as the code; each has its own message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Code {
            $($name,)*
        }

        impl Code {
            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// Status, code and message as they go out.
            pub(crate) fn row(self) -> (u16, &'static str, &'static str) {
                match self {
                    $(Self::$name => ($status, $code, $message),)*
                }
            }
        }
    };
}
pub(crate) use error_codes;
