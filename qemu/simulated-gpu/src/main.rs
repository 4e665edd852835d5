//! `simulated-gpu`: serves a GPU to one QEMU and prints the arguments that attach it.

use clap::Parser;
use simulated_gpu::config_space::ConfigSpace;
use simulated_gpu::{Error, Fault, Function, Link, Model, Options, Server, Size, functions, qemu, serve};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

/// Presents a GPU to QEMU (from 10.1 on) that NVIDIA's real driver takes for one. It computes nothing.
///
/// Prints QEMU's arguments, then serves until QEMU goes away.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 100)]
struct Arguments {
    /// Which GPU.
    #[arg(long, default_value = "h100-pcie")]
    model: String,
    /// A file of models of your own, in the form of models.toml.
    #[arg(long, value_name = "FILE")]
    models: Option<PathBuf>,
    /// Where to listen. The audio function listens on PATH.audio.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["list", "dump"])]
    socket: Option<PathBuf>,
    /// The size of BAR1, 64M to 256G.
    #[arg(long, value_name = "SIZE", value_parser = parsed::<Size>)]
    bar1: Option<Size>,
    /// What the link has trained to: GT/s of a lane, x, lanes, such as 2.5x4.
    #[arg(long, value_parser = parsed::<Link>)]
    link: Option<Link>,
    /// The end of the serial number, 0 to 65535.
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    serial: u16,
    /// The P2P clique, 0 to 15.
    #[arg(long)]
    clique: Option<u8>,
    /// With Access Control Services.
    #[arg(long)]
    acs: bool,
    /// With Address Translation Service.
    #[arg(long)]
    ats: bool,
    /// Without the Resizable BAR capability.
    #[arg(long)]
    no_resizable: bool,
    /// Serve the audio function too, where the model has one.
    #[arg(long)]
    audio: bool,
    /// What is broken: small-bar1, link-trained-down, fallen-off-the-bus[=READS], refuses-reset. May be repeated.
    #[arg(long = "fault", value_name = "FAULT", value_parser = parsed::<Fault>)]
    faults: Vec<Fault>,
    /// The id of QEMU's bus in the printed arguments.
    #[arg(long, default_value = "gpu-port")]
    bus: String,
    /// List the models and end.
    #[arg(long)]
    list: bool,
    /// Print the configuration space as `lspci -F FILE -vvv` reads it, and end.
    #[arg(long)]
    dump: bool,
}

fn parsed<T: FromStr<Err = Error>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: Error| format!("{error}; {}", error.hint()))
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Whoever closed the pipe needs no help.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 64 } else { 0 });
        }
    };
    if arguments.list {
        return match models(&arguments) {
            Ok(models) => {
                print(&list(&models));
                ExitCode::SUCCESS
            }
            Err(error) => failed(&error, 64),
        };
    }
    let functions = match prepare(&arguments) {
        Ok(functions) => functions,
        Err(error) => return failed(&error, 64),
    };
    match &arguments.socket {
        Some(socket) if !arguments.dump => match serve_all(functions, socket, &arguments.bus) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error, 69),
        },
        _ => {
            for function in &functions {
                print(&ConfigSpace::new(function).lspci(&format!("01:00.{}", function.number)));
            }
            ExitCode::SUCCESS
        }
    }
}

/// gdsboot's statuses: 64 for what the user wrote, 69 for what failed.
fn failed(error: &Error, status: u8) -> ExitCode {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    eprintln!("simulated-gpu: error: {text}\nhint: {}", error.hint());
    ExitCode::from(status)
}

fn models(arguments: &Arguments) -> Result<Vec<Model>, Error> {
    arguments.models.as_deref().map_or_else(|| Ok(Model::all()), Model::load_all)
}

fn prepare(arguments: &Arguments) -> Result<Vec<Function>, Error> {
    let model = match &arguments.models {
        Some(path) => Model::load(path, &arguments.model)?,
        None => Model::named(&arguments.model)?,
    };
    let mut functions = functions(&model, &options(arguments))?;
    functions.retain(|function| function.number == 0 || arguments.audio);
    Ok(functions)
}

fn options(arguments: &Arguments) -> Options {
    Options {
        bar1: arguments.bar1,
        link: arguments.link,
        serial: arguments.serial,
        clique: arguments.clique,
        resizable: !arguments.no_resizable,
        acs: arguments.acs,
        ats: arguments.ats,
        faults: arguments.faults.clone(),
    }
}

fn list(models: &[Model]) -> String {
    let mut text = String::new();
    for model in models {
        let audio = if model.audio.is_some() { ", audio" } else { "" };
        text.push_str(&format!(
            "{:16} {:04x}:{:04x} {}, BAR1 {}, link {}{audio}\n{:16} driver: {}\n",
            model.name,
            model.vendor,
            model.device,
            model.description,
            model.bar1,
            model.link,
            "",
            model.verified
        ));
    }
    text
}

fn serve_all(functions: Vec<Function>, socket: &Path, bus: &str) -> Result<(), Error> {
    let (memory, property) = qemu::shared_memory(2048);
    let mut lines = vec![
        format!("-machine q35,{property}"),
        memory.join(" "),
        format!("-device pcie-root-port,id={bus},chassis=1,slot=1,x-speed=32,x-width=16"),
        format!("-fw_cfg {}", qemu::OVMF_WINDOW),
    ];
    let several = functions.len() > 1;
    let mut servers: Vec<Server> = Vec::new();
    for function in functions {
        let mut path = socket.as_os_str().to_owned();
        if function.number > 0 {
            path.push(".audio");
        }
        let path = PathBuf::from(path);
        let multifunction = several && function.number == 0;
        lines.push(format!("-device '{}'", qemu::device(&function, multifunction, bus, 0, &path)));
        servers.push(serve(&path, function)?);
    }
    print(&(lines.join(" \\\n") + "\n"));
    for mut server in servers {
        while !server.wait(Duration::from_secs(3600))? {}
    }
    Ok(())
}

/// Whoever closed the pipe does not want it.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
