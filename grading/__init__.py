"""Is a solution of the assignment right? `python -m grading DIR` judges one submission, of any edition.

__main__.py     the command: the order of events
editions/       what each edition asks, as data: files, constructors, flags, and question -> probes
submission.py   where a submission's parts lie, and which edition it answers; nothing is run for that
server.py       a warm process that forks for each probe
loading.py      imports a submission, there
adapters/       the one way in which probes call a submission, whatever its form
probes/         what must hold
answer.py       what was found, for a reader, as Markdown and as Gradescope's results.json
"""
