//! The filesystem of a disk's report partition, written to as a technician's laptop does.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// Part of a file, as a filesystem sees it.
struct Window(File, u64);

impl Read for Window {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buf)
    }
}

impl Write for Window {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.0.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => SeekFrom::Start(at + self.1),
            other => other,
        };
        Ok(self.0.seek(to)? - self.1)
    }
}

/// A mounted report partition.
pub struct Volume(fatfs::FileSystem<Window>);

impl Volume {
    /// That of the raw disk `path`.
    pub fn open(path: &Path) -> Self {
        let offset = {
            let image = gdsboot::report::source::Image::open(path).unwrap();
            image.report_partition().unwrap().start
        };
        let mut file = File::options().read(true).write(true).open(path).unwrap();
        file.seek(SeekFrom::Start(offset)).unwrap();
        Self(fatfs::FileSystem::new(Window(file, offset), fatfs::FsOptions::new()).unwrap())
    }

    /// Puts files into its uppermost folder.
    pub fn put(&self, files: &[(&str, &[u8])]) {
        for (name, bytes) in files {
            let mut file = self.0.root_dir().create_file(name).unwrap();
            file.truncate().unwrap();
            file.write_all(bytes).unwrap();
        }
    }

    /// Leaves no room on it.
    pub fn fill(&self) {
        let mut file = self.0.root_dir().create_file("full").unwrap();
        for size in [1 << 20, 512] {
            let piece = vec![0xff; size];
            while file.write_all(&piece).is_ok() {}
        }
        assert_eq!(self.0.stats().unwrap().free_clusters(), 0);
    }
}
