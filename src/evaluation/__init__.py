"""An evaluation: a checkpoint measured on val or test, with intervals, calibration, tables and figures."""
