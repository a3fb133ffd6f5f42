"""A conversation of up to three turns, as a user's own task class would be."""

import re

from lm_eval.api.task import ConfigurableTask


def number(text):
    """Return the first number of a text; an odd one where there is none."""
    found = re.search(r"\d+", text)
    return int(found[0]) if found else -1


class Haggling(ConfigurableTask):
    """The user asks for less until the model has named an even number, at most three times."""

    def __init__(self, config):
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def next_turn(self, doc, responses):
        named = number(responses[-1])
        return None if named % 2 == 0 or len(responses) == 3 else f"Not {named} for {doc['answer']} pens. Less?"

    def process_results(self, doc, results):  # noqa: ARG002 - lm-eval's hook
        return {"n_turns": float(len(results)), "is_even": float(number(results[-1]) % 2 == 0)}

    def aggregation(self):
        from lm_eval.api.metrics import mean

        return {"n_turns": mean, "is_even": mean}

    def higher_is_better(self):
        return {"n_turns": False, "is_even": True}
