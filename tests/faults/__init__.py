"""The matrix of faults: what is done to a fleet of real senders, and what ledger and oracle say afterwards."""
