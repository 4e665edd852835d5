//! The arguments by which QEMU, from 10.1 on, attaches what is served.

use crate::function::Function;
use serde_json::json;
use std::path::Path;

/// The value of `-fw_cfg` by which OVMF gives 64-bit windows 512 GiB: by itself it takes an eighth of what the CPU can
/// address, 128 GiB with TCG's 40 bits, into which the windows of one large GPU do not fit.
pub const OVMF_WINDOW: &str = "name=opt/ovmf/X-PciMmio64Mb,string=524288";

/// The value of `-device` for a function on a bus of QEMU's, such as a root port by its id, in its slot `slot`.
///
/// Functions of one device share bus and slot; function 0 needs `multifunction` where there are others.
pub fn device(function: &Function, multifunction: bool, bus: &str, slot: u8, socket: &Path) -> String {
    let mut value = json!({
        "driver": "vfio-user-pci",
        "bus": bus,
        "addr": format!("{slot:x}.{:x}", function.number),
        "socket": {"type": "unix", "path": socket.display().to_string()},
    });
    if multifunction {
        value["multifunction"] = true.into();
    }
    value.to_string()
}

/// Memory of `mib` MiB that QEMU shares with the server, as vfio-user demands: arguments and, for `-machine`, a property.
pub fn shared_memory(mib: u64) -> ([String; 2], &'static str) {
    let object = format!("memory-backend-memfd,id=mem,size={mib}M,share=on");
    (["-object".into(), object], "memory-backend=mem")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Model, Options, functions};

    #[test]
    fn a_device_is_one_argument() {
        let both = functions(&Model::named("rtx-6000-ada").unwrap(), &Options::default()).unwrap();
        assert_eq!(
            device(&both[1], false, "port", 0, Path::new("/run/a,b.sock")),
            r#"{"driver":"vfio-user-pci","bus":"port","addr":"0.1","socket":{"type":"unix","path":"/run/a,b.sock"}}"#
        );
        assert!(device(&both[0], true, "port", 31, Path::new("s")).contains(r#""addr":"1f.0""#));
        assert!(device(&both[0], true, "port", 0, Path::new("s")).ends_with(r#","multifunction":true}"#));
    }
}
