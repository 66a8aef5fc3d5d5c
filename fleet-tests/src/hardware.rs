//! What a machine is made of beside processor and memory: the disks and network cards of gateways, as far as QEMU has them.

/// What the disk hangs on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Drive {
    /// That of virtual machines.
    #[default]
    Virtio,
    /// NVMe.
    Nvme,
    /// SATA, by AHCI.
    Sata,
    /// A card in an SDHCI reader. QEMU has no soldered one (eMMC) that could be plugged in; to the system they are the same driver.
    Sd,
    /// A stick on USB 3.
    Usb,
}

/// The network card.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Card {
    /// That of virtual machines.
    #[default]
    Virtio,
    /// Intel 82574L.
    E1000e,
    /// Intel 82576.
    Igb,
    /// Realtek 8139.
    Rtl8139,
    /// An adapter on USB.
    Usb,
}

impl Drive {
    /// Whether QEMU has to hand the kernel image over: the firmware of its machines has no driver for SD. What the system itself does with such a
    /// disk is the same.
    pub(crate) fn needs_kernel(self) -> bool {
        self == Self::Sd
    }
}

/// One machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct Hardware {
    /// Its disk.
    pub drive: Drive,
    /// Its network card.
    pub card: Card,
    /// Whether its firmware can refuse to start what nobody has signed.
    pub secure_boot: bool,
    /// What else is plugged in, as QEMU is told.
    pub more: &'static [&'static str],
}

impl Hardware {
    /// The devices, for the disk `disk` and the network `net`. The disk is named as the first to boot from: firmware remembers it by its place,
    /// which another network card moves.
    pub(crate) fn arguments(&self) -> Vec<&'static str> {
        let mut devices = match self.drive {
            Drive::Virtio => vec!["virtio-blk-pci,drive=disk,bootindex=0"],
            Drive::Nvme => vec!["nvme,drive=disk,serial=1,bootindex=0"],
            Drive::Sata => vec!["ide-hd,drive=disk,bus=ide.0,bootindex=0"],
            Drive::Sd => vec!["sdhci-pci", "sd-card,drive=disk"],
            Drive::Usb => vec!["qemu-xhci", "usb-storage,drive=disk,bootindex=0"],
        };
        devices.extend(match self.card {
            Card::Virtio => vec!["virtio-net-pci,netdev=net,romfile="],
            Card::E1000e => vec!["e1000e,netdev=net,romfile="],
            Card::Igb => vec!["igb,netdev=net"],
            Card::Rtl8139 => vec!["rtl8139,netdev=net,romfile="],
            Card::Usb => vec!["nec-usb-xhci,id=net-usb", "usb-net,bus=net-usb.0,netdev=net"],
        });
        let secure = self.secure_boot.then_some(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        let devices = devices.into_iter().flat_map(|device| ["-device", device]);
        devices.chain(secure.into_iter().flatten()).chain(self.more.iter().copied()).collect()
    }
}
