//! cufile.h: transfers that are submitted together.

use crate::cufile::{error, transfer};
use crate::enter;
use std::ffi::{c_int, c_uint, c_void};

/// CUfileIOParams_t.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Transfer {
    _mode: c_int,
    memory: u64,
    offset: i64,
    from: i64,
    bytes: usize,
    handle: *mut c_void,
    opcode: c_int,
    cookie: usize,
}

/// CUfileIOEvents_t.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Event {
    cookie: usize,
    status: c_int,
    returned: usize,
}

type Batch = Vec<Event>;

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIOSetUp(batch: *mut *mut Batch, count: c_uint) -> u64 {
    if count > 128 {
        return error(5022);
    }
    unsafe { *batch = Box::into_raw(Box::default()) };
    error(enter("cuFileBatchIOSetUp"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIOSubmit(
    batch: *mut Batch,
    count: c_uint,
    transfers: *const Transfer,
    _flags: c_uint,
) -> u64 {
    let status = enter("cuFileBatchIOSubmit");
    if status != 0 {
        return error(status);
    }
    for entry in unsafe { std::slice::from_raw_parts(transfers, count as usize) } {
        let Transfer { memory, offset, from, bytes, handle, opcode, cookie, .. } = *entry;
        let done = unsafe { transfer(opcode == 1, handle, memory, bytes, offset, from) };
        // CUFILE_COMPLETE and CUFILE_FAILED
        let (status, returned) = if done < 0 { (64, 0) } else { (16, done as usize) };
        unsafe { (*batch).push(Event { cookie, status, returned }) };
    }
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIOGetStatus(
    batch: *mut Batch,
    _least: c_uint,
    count: *mut c_uint,
    events: *mut Event,
    _limit: *mut c_void,
) -> u64 {
    // Never all at a time, so that the caller has to ask again.
    let batch = unsafe { &mut *batch };
    let some = batch.len().div_ceil(2).min(unsafe { *count } as usize);
    for (index, event) in batch.drain(..some).enumerate() {
        unsafe { events.add(index).write(event) };
    }
    unsafe { *count = some as c_uint };
    error(enter("cuFileBatchIOGetStatus"))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuFileBatchIODestroy(batch: *mut Batch) {
    drop(unsafe { Box::from_raw(batch) });
}
