"""What clients talk to: admission, the state of jobs, approvals, permits, the registry, the command line and the console."""
