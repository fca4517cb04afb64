//! The fixed sets of words, each in the order of its Avro enum. Mirrors the enums of `schemas/events.py`.

/// An enum whose members stand in the order of the schema's symbols, and the text of each.
macro_rules! words {
    ($(#[$about:meta])* $name:ident { $($member:ident = $text:literal),+ $(,)? }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($member),+ }

        impl $name {
            pub const ALL: [Self; [$($text),+].len()] = [$(Self::$member),+];

            #[allow(dead_code)] // not every set's texts are written
            pub const fn text(self) -> &'static str {
                match self { $(Self::$member => $text),+ }
            }

            /// Its place among the schema's symbols.
            pub const fn number(self) -> usize {
                self as usize
            }
        }
    };
}

words!(
    /// What happened. `Unknown` stands for an action of a newer schema.
    Action {
        Created = "CREATED",
        Completed = "COMPLETED",
        Cancelled = "CANCELLED",
        Deleted = "DELETED",
        Copied = "COPIED",
        Unknown = "UNKNOWN",
    }
);

words!(Lifecycle {
    Active = "ACTIVE",
    Deleted = "DELETED",
    Unknown = "UNKNOWN",
});

words!(
    /// The state of a task; `Active` is an instance's before it has any task.
    Status {
        Pending = "PENDING",
        Completed = "COMPLETED",
        Cancelled = "CANCELLED",
        Active = "ACTIVE",
        Unknown = "UNKNOWN",
    }
);

words!(
    /// The four lists of a task center.
    View {
        Created = "CREATED",
        Pending = "PENDING",
        Handled = "HANDLED",
        Copied = "COPIED",
    }
);

words!(Change {
    Added = "ADDED",
    Updated = "UPDATED",
    Removed = "REMOVED",
});
