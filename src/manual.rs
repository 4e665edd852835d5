//! What a program says of its own command line in other forms than `--help`: man pages, and what shells complete.

use crate::error::{Advise as _, Status, usage};
use crate::output_stream::stdout;
use anyhow::{Context as _, Result};
use clap::Command;
use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// Print what a shell needs to complete this program's commands and options
#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: Shell,
}

/// Write this program's man pages into a folder
#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder; it is made if it is not there
    pub folder: PathBuf,
}

/// The shells that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Shell {
    /// source <(PROGRAM completions bash)
    Bash,
    /// Put it into a folder of $fpath, named _PROGRAM
    Zsh,
    /// PROGRAM completions fish | source
    Fish,
    /// PROGRAM completions powershell | Out-String | Invoke-Expression
    Powershell,
    /// eval (PROGRAM completions elvish | slurp)
    Elvish,
}

impl From<Shell> for clap_complete::Shell {
    fn from(shell: Shell) -> Self {
        match shell {
            Shell::Bash => Self::Bash,
            Shell::Zsh => Self::Zsh,
            Shell::Fish => Self::Fish,
            Shell::Powershell => Self::PowerShell,
            Shell::Elvish => Self::Elvish,
        }
    }
}

/// Prints `program`'s completions.
pub fn completions(args: &CompletionsArgs, mut program: Command) -> Result<Status> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(clap_complete::Shell::from(args.shell), &mut program, name, &mut script);
    stdout().write_all(&script).context("writing the completions")?;
    Ok(Status::Pass)
}

/// Writes the man pages of `program` and of each of its commands, `gdsboot.1` and `gdsboot-build.1`, into a folder. Pages
/// that are there are replaced.
pub fn man(args: &ManArgs, program: Command) -> Result<Status> {
    let folder = &args.folder;
    if folder.exists() && !folder.is_dir() {
        return Err(usage(format!("{} is not a folder", folder.display()), "name another one"));
    }
    fs_err::create_dir_all(folder).hint("name a folder that can be written to")?;
    let pages = pages(program)?;
    for Page { name, text } in &pages {
        write(&folder.join(name), text)?;
    }
    println!("{} pages are in {}; the first: man {}", pages.len(), folder.display(), first(folder, &pages));
    Ok(Status::Pass)
}

fn first(folder: &Path, pages: &[Page]) -> impl fmt::Display {
    let name = pages.first().map_or("", |page| &page.name);
    // With a / in it, man takes it for a file and not for a name.
    Path::new(".").join(folder).join(name).display().to_string()
}

fn write(path: &Path, text: &[u8]) -> Result<()> {
    let folder = path.parent().context("a page has no folder")?;
    let mut temp = tempfile::NamedTempFile::new_in(folder)?;
    temp.write_all(text).with_context(|| format!("writing {}", path.display()))?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    temp.as_file().set_permissions(readable).with_context(|| format!("writing {}", path.display()))?;
    temp.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

/// One man page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The file's name, such as `gdsboot-build.1`.
    pub name: String,
    /// In roff.
    pub text: Vec<u8>,
}

/// The man pages of `program` and of each of its commands, the program's own first.
pub fn pages(program: Command) -> Result<Vec<Page>> {
    let mut program = program.disable_help_subcommand(true);
    // Names, usage and options that all commands share are only there in a command that is built.
    program.build();
    let source = format!("{} {}", program.get_name(), program.get_version().unwrap_or_default());
    let mut pages = Vec::new();
    let mut commands = vec![program];
    while let Some(command) = commands.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
        let mut children: Vec<_> = command.get_subcommands().filter(|c| !c.is_hide_set()).cloned().collect();
        children.reverse();
        commands.append(&mut children);
        // Without a date: the same program has the same pages.
        let page =
            clap_mangen::Man::new(command).title(name.to_uppercase()).source(&source).manual("gdsboot");
        let mut text = Vec::new();
        page.render(&mut text).context("making a man page").status(Status::Bug)?;
        pages.push(Page { name: format!("{name}.1"), text });
    }
    Ok(pages)
}
