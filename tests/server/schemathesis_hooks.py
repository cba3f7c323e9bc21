"""For schemathesis: pictures that are quick to make, and answers that end."""

import schemathesis

STEPS = ("num_steps", "steps", "num_inference_steps")


@schemathesis.hook
def before_call(context, case, kwargs):
    """One step where a number of steps is one that would be accepted; nothing that is refused is changed."""
    body = case.body
    if isinstance(body, dict):
        for one in [body, *(body.get("requests") or [] if isinstance(body.get("requests"), list) else [])]:
            if isinstance(one, dict):
                _quick(one)
        if isinstance(body.get("parameters"), dict):
            _quick(body["parameters"])


def _quick(values):
    for name in STEPS:
        if isinstance(values.get(name), int) and 1 <= values[name] <= 1000:
            values[name] = 1
