//! cuFile's error numbers (`CUfileOpError` in cufile.h).

/// The number that the first error follows.
const BASE: i64 = 5000;

const NAMES: [(i64, &str); 48] = [
    (1, "CU_FILE_DRIVER_NOT_INITIALIZED"),
    (2, "CU_FILE_DRIVER_INVALID_PROPS"),
    (3, "CU_FILE_DRIVER_UNSUPPORTED_LIMIT"),
    (4, "CU_FILE_DRIVER_VERSION_MISMATCH"),
    (5, "CU_FILE_DRIVER_VERSION_READ_ERROR"),
    (6, "CU_FILE_DRIVER_CLOSING"),
    (7, "CU_FILE_PLATFORM_NOT_SUPPORTED"),
    (8, "CU_FILE_IO_NOT_SUPPORTED"),
    (9, "CU_FILE_DEVICE_NOT_SUPPORTED"),
    (10, "CU_FILE_NVFS_DRIVER_ERROR"),
    (11, "CU_FILE_CUDA_DRIVER_ERROR"),
    (12, "CU_FILE_CUDA_POINTER_INVALID"),
    (13, "CU_FILE_CUDA_MEMORY_TYPE_INVALID"),
    (14, "CU_FILE_CUDA_POINTER_RANGE_ERROR"),
    (15, "CU_FILE_CUDA_CONTEXT_MISMATCH"),
    (16, "CU_FILE_INVALID_MAPPING_SIZE"),
    (17, "CU_FILE_INVALID_MAPPING_RANGE"),
    (18, "CU_FILE_INVALID_FILE_TYPE"),
    (19, "CU_FILE_INVALID_FILE_OPEN_FLAG"),
    (20, "CU_FILE_DIO_NOT_SET"),
    (22, "CU_FILE_INVALID_VALUE"),
    (23, "CU_FILE_MEMORY_ALREADY_REGISTERED"),
    (24, "CU_FILE_MEMORY_NOT_REGISTERED"),
    (25, "CU_FILE_PERMISSION_DENIED"),
    (26, "CU_FILE_DRIVER_ALREADY_OPEN"),
    (27, "CU_FILE_HANDLE_NOT_REGISTERED"),
    (28, "CU_FILE_HANDLE_ALREADY_REGISTERED"),
    (29, "CU_FILE_DEVICE_NOT_FOUND"),
    (30, "CU_FILE_INTERNAL_ERROR"),
    (31, "CU_FILE_GETNEWFD_FAILED"),
    (33, "CU_FILE_NVFS_SETUP_ERROR"),
    (34, "CU_FILE_IO_DISABLED"),
    (35, "CU_FILE_BATCH_SUBMIT_FAILED"),
    (36, "CU_FILE_GPU_MEMORY_PINNING_FAILED"),
    (37, "CU_FILE_BATCH_FULL"),
    (38, "CU_FILE_ASYNC_NOT_SUPPORTED"),
    (39, "CU_FILE_INTERNAL_BATCH_SETUP_ERROR"),
    (40, "CU_FILE_INTERNAL_BATCH_SUBMIT_ERROR"),
    (41, "CU_FILE_INTERNAL_BATCH_GETSTATUS_ERROR"),
    (42, "CU_FILE_INTERNAL_BATCH_CANCEL_ERROR"),
    (43, "CU_FILE_NOMEM_ERROR"),
    (44, "CU_FILE_IO_ERROR"),
    (45, "CU_FILE_INTERNAL_BUF_REGISTER_ERROR"),
    (46, "CU_FILE_HASH_OPR_ERROR"),
    (47, "CU_FILE_INVALID_CONTEXT_ERROR"),
    (48, "CU_FILE_NVFS_INTERNAL_DRIVER_ERROR"),
    (49, "CU_FILE_BATCH_NOCOMPAT_ERROR"),
    (50, "CU_FILE_IO_MAX_ERROR"),
];

/// The name of an error number.
pub fn name(status: i64) -> Option<&'static str> {
    NAMES.iter().find(|(number, _)| BASE + number == status).map(|(_, name)| *name)
}

/// Does the number say that there is no direct route, so that only copies by the CPU would be left?
pub fn means_no_direct_route(status: i64) -> bool {
    matches!(status - BASE, 1 | 7 | 8 | 9 | 34 | 49)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_names() {
        assert_eq!(name(5008), Some("CU_FILE_IO_NOT_SUPPORTED"));
        assert_eq!(name(5034), Some("CU_FILE_IO_DISABLED"));
        // Numbers that the header leaves out, and those of other libraries.
        assert_eq!((name(5021), name(5032), name(0), name(700)), (None, None, None, None));
        assert!(means_no_direct_route(5008) && !means_no_direct_route(5044));
        assert!(NAMES.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
