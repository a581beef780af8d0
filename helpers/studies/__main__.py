"""`python -m helpers.studies 04`: see runner."""

import sys

from helpers.studies.runner import study_command

sys.exit(study_command())
