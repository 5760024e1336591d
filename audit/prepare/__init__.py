"""Intake of data: from a hostile file to four splits, a canary manifest and facts.

Reading order:

``lines``        bounded, strict UTF-8 lines; what is wrong with a file as a whole
``findings``     what is wrong with single rows: row, field, code, reason, never content
``rows``         the one shape a row has from here on, and its spool on disk
``unpack``       gzip and zip, under caps
``parse_chat``   JSONL in the OpenAI chat fine-tuning shape
``parse_pairs``, ``tool_calls``, ``parse_parquet``  the other formats
``parse_table``  decision tables, rendered to chat by a fixed template
``tokens``       counts tokens as the trainer will see them
``parents``      rows that models of before were trained on, which only train may hold
``splits``       copies out, then train, validation, selection and test
``scan``, ``actions``  personal data in every valid row, before any canary is planted, and what becomes of it
``labelled``, ``detector``, ``safe_harbor``  how much of it is found, and HIPAA's 18 classes
``duplicates``, ``screens``, ``screening``  near duplicates, poison, harm, leakage between splits
``secrets_of_nobody``, ``canaries``  secrets that belong to nobody, derived from the job's key
``carriers``     what canaries borrow from the rows
``facts``        what was found, for policies and for the signed statement
``order``        what the task was asked
``task``         the walk through all of it; ``run(context)`` is what the audit worker starts

Nothing here judges: a bad share of rows or much personal data is a fact for ``policies``. Only a file that cannot be
read as what it claims to be is refused here.
"""
