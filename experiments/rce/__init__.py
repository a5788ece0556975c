"""The parts of rce_detection.py: nets and their detectors, the study, its geometry and tables."""
