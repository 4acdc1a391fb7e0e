"""Measure the coverage of a script that runs in a virtualenv which has no coverage of its own."""
import os
import sys

sys.path.append(os.environ["COVERAGE_LENT_FROM"])
import coverage  # noqa: E402

sys.path.pop()
coverage.process_startup()
