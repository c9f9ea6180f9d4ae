//! The scripts that run in Redis, each whole or not at all.

use super::link::order::Script;

/// Makes the scripts. Some begin with what finds a room.
macro_rules! scripts {
    ($( $constant:ident = $name:literal $(+ $with:literal)?; )*) => {
        $( pub(super) static $constant: Script = Script {
            name: $name,
            text: concat!(
                $( include_str!(concat!("scripts/", $with, ".lua")), )?
                include_str!(concat!("scripts/", $name, ".lua")),
            ),
        }; )*

        /// All of them.
        pub(crate) static ALL: &[&Script] = &[ $( &$constant ),* ];
    };
}

scripts! {
    OPEN = "open" + "room";
    PUBLISH = "publish" + "room";
    PRESENCE = "presence" + "version";
    SAVE = "save";
    TAKE = "take";
    END = "end";
    RETURN = "return";
    DIRECT = "direct";
    BEAT = "beat";
    ORPHAN = "orphan";
    REAP = "reap" + "version";
}
