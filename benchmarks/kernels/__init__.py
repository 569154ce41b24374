"""GPU kernel problems in the layout of SOL-ExecBench, scored against the speed of light of the device."""
