"""The scenarios of MLPerf Inference: SingleStream, MultiStream, Offline and Server."""
