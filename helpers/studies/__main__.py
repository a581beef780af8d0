"""`python -m helpers.studies 04`: see runner."""

import sys

from helpers.studies.runner import main

sys.exit(main())
