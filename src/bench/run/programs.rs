//! The parts of a plan that other people's programs carry out. They are given what was made for the benchmark to write to,
//! and nothing else.

use super::{ANY, Run};
use crate::bench::drive::Opened;
use crate::bench::gdsio::command::{Near, Shape, Tools, Way};
use crate::bench::gdsio::{self, Place};
use crate::bench::transfer::job::{Job, Until};
use crate::bench::workload::{self, Available};
use std::os::fd::AsRawFd as _;

impl Run<'_> {
    /// gdsio in each of its ways, then gdsio_verify.
    pub(super) fn gdsio(&mut self, gpu: usize, drive: usize, job: &Job) {
        if !self.has(drive) {
            return;
        }
        let tools = Tools::find(self.means.root);
        let Opened { target, folder, drive: known, .. } = &self.survey.drives[drive];
        let seen = &self.survey.gpus[gpu];
        let near = Near {
            index: seen.index,
            pci: &seen.gpu.pci,
            numa: self.survey.nodes.get(gpu).copied().flatten(),
        };
        let place = Place {
            gpu: Some(near),
            drive: known,
            file: &target.file,
            folder: folder.as_deref(),
            simulated: self.results.simulated,
        };
        for way in [Way::CpuOnly, Way::CpuGpu, Way::Gpud] {
            let shape = Shape {
                way,
                direction: job.direction,
                order: job.order,
                // Beyond is what nobody has filled.
                bytes: job.range.end,
                block: job.block,
                threads: job.threads,
                seconds: match job.until {
                    Until::Seconds(seconds) => seconds.ceil().max(1.0) as u32,
                    Until::Once => 1,
                },
            };
            match gdsio::measure(&tools, &place, &shape, ANY) {
                Ok(measured) => {
                    self.listener.ran("gdsio", &measured.words());
                    self.results.gdsio.push(measured);
                }
                // It refuses the other ways for the same reason.
                Err(refused) => {
                    self.not_done(refused);
                    break;
                }
            }
        }
        match gdsio::verify(&tools, &place, ANY) {
            Ok(verified) => {
                self.listener.ran("gdsio_verify", &verified.words());
                self.results.gdsio_verified.push(verified);
            }
            Err(refused) => self.not_done(refused),
        }
    }

    /// A program of the operator's own.
    pub(super) fn workload(&mut self, number: usize) {
        let Some(workload) = self.means.workloads.get(number) else { return };
        let environment = self.means.worker.map_or(&[][..], |worker| worker.environment);
        let result = workload::run(workload, &self.available(), self.means.programs, environment);
        self.listener.ran(&workload.name, &result.why);
        self.results.workloads.push(result);
    }

    /// What there is to work on. The file is the benchmark's own, which needs it no longer.
    fn available(&self) -> Available {
        let survey = self.survey;
        let writable: Vec<(usize, &Opened)> = (survey.drives.iter().enumerate())
            .filter(|(number, opened)| opened.target.writable && !self.gone.contains_key(number))
            .collect();
        let path =
            |opened: &Opened| format!("/proc/{}/fd/{}", std::process::id(), opened.target.file.as_raw_fd());
        let folder = writable.iter().find_map(|(_, opened)| opened.folder.as_deref());
        // The GPU that is nearest to what is written.
        let ranks = survey.ranks();
        let drive = writable.first().map(|(number, _)| *number);
        let nearest = (0..survey.gpus.len())
            .min_by_key(|gpu| drive.and_then(|drive| ranks.get(*gpu)?.get(drive).copied()));
        Available {
            file: writable.first().map(|(_, opened)| path(opened)),
            files: writable.iter().map(|(_, opened)| path(opened)).collect(),
            folder: folder.and_then(|folder| folder.to_str()).map(str::to_owned),
            gpu: nearest.map(|gpu| survey.gpus[gpu].index),
            gpus: survey.gpus.iter().map(|seen| seen.index).collect(),
        }
    }
}
