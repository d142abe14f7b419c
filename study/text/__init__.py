"""Tables and sentences that terminal, report and dashboard share; computes nothing that decides."""
