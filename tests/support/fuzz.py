"""Settings of the fuzz tests.

They try what hypothesis makes up from ``--hypothesis-seed``. pytest's options set it to 0;
``make fuzz`` takes another seed each time, and prints it.
"""

from hypothesis import HealthCheck, settings

FUZZ = settings(
    max_examples=100,
    deadline=None,
    database=None,
    print_blob=True,  # a failure prints the line that repeats it
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
