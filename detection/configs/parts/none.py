# Neck and heads are the detector's own, real-valued.
onebit_parts = "none"
