"""The functions of overlap.yaml."""


def short_pages(dataset):
    return dataset.filter(lambda doc: len(doc["text"]) < 200)


def ask_for_title(doc):
    return f"{doc['text'][:80]}\n\nIts title, in a word:"


def process_results(doc, results):
    """Leave a metric out for some docs: lm-eval takes its mean over the others."""
    (response,) = results
    shared = set(response.lower()) & set(doc["title"].lower())
    metrics = {"overlap": len(shared) / len(set(doc["title"].lower())), "spread": len(set(response))}
    if doc["title"][0].lower() in "abcdefghijklm":
        metrics["first_hit"] = int(response.lower().startswith(doc["title"][0].lower()))
    return metrics


def spread(values):
    return max(values) - min(values)
