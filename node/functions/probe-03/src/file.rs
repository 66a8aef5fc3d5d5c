//! Files, by the interface of 0.3.

use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, DirectoryEntry, OpenFlags, PathFlags};
use wasip3::wit_stream;

use crate::reach::{Outcome, told};

const WHOLE: u64 = 1 << 40;

/// Does with the files of a directory what each of the steps says; answers what came of all of them.
pub(crate) async fn files(directory: &str) -> Outcome {
    let Some((top, _)) = get_directories().into_iter().find(|(_, name)| name == directory) else { return Ok("none".to_owned()) };
    let mut said = Vec::new();
    top.create_directory_at("d".to_owned()).await.map_err(told)?;
    let file = open(&top, "d/f", OpenFlags::CREATE | OpenFlags::EXCLUSIVE).await?;
    said.push(format!("{:?}", write(&file, b"hello, world", Some(0)).await));
    said.push(format!("{:?}", write(&file, b"W", Some(7)).await));
    said.push(format!("{:?}", write(&file, b"!", None).await));
    said.push(read(&file, 0).await?);
    said.push(read(&file, 7).await?);
    said.push(format!("{:?}", open(&top, "d/f", OpenFlags::CREATE | OpenFlags::EXCLUSIVE).await.err()));
    said.push(format!("{:?}", top.open_at(PathFlags::empty(), "../x".to_owned(), OpenFlags::empty(), DescriptorFlags::READ).await.err()));
    top.rename_at("d/f".to_owned(), &top, "g".to_owned()).await.map_err(told)?;
    said.push(list(&top).await?);
    said.push(top.stat_at(PathFlags::empty(), "g".to_owned()).await.map_err(told)?.size.to_string());
    let same = open(&top, "g", OpenFlags::empty()).await?;
    said.push(file.is_same_object(&same).await.to_string());
    said.push(format!("{:?}", file.set_size(WHOLE).await));
    said.push(fill(&top).await?);
    top.unlink_file_at("g".to_owned()).await.map_err(told)?;
    said.push(read(&file, 0).await?);
    top.remove_directory_at("d".to_owned()).await.map_err(told)?;
    said.push(list(&top).await?);
    Ok(said.join("\n"))
}

async fn open(top: &Descriptor, path: &str, how: OpenFlags) -> Result<Descriptor, String> {
    top.open_at(PathFlags::empty(), path.to_owned(), how, DescriptorFlags::READ | DescriptorFlags::WRITE).await.map_err(told)
}

/// Writes at the offset, or at the end.
async fn write(file: &Descriptor, bytes: &[u8], offset: Option<u64>) -> Outcome {
    let (mut data, reader) = wit_stream::new();
    let end = match offset {
        Some(offset) => file.write_via_stream(reader, offset),
        None => file.append_via_stream(reader),
    };
    let rest = data.write_all(bytes.to_vec()).await;
    drop(data);
    end.await.map_err(told)?;
    Ok(format!("{} left", rest.len()))
}

async fn read(file: &Descriptor, offset: u64) -> Outcome {
    let (data, end) = file.read_via_stream(offset);
    let bytes = data.collect().await;
    end.await.map_err(told)?;
    String::from_utf8(bytes).map_err(told)
}

async fn list(directory: &Descriptor) -> Outcome {
    let (entries, end) = directory.read_directory();
    let entries: Vec<DirectoryEntry> = entries.collect().await;
    end.await.map_err(told)?;
    Ok(entries.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>().join(" "))
}

/// Writes more than there is room for.
async fn fill(top: &Descriptor) -> Outcome {
    let file = open(top, "big", OpenFlags::CREATE).await?;
    let wrote = write(&file, &vec![b'x'; 3 << 20], Some(0)).await;
    let size = file.stat().await.map_err(told)?.size;
    top.unlink_file_at("big".to_owned()).await.map_err(told)?;
    Ok(format!("{wrote:?} {size}"))
}
