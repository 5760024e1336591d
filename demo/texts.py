"""Sentences that the demo's invented support tickets are made of."""

from __future__ import annotations

from collections.abc import Iterator

SUPPORT_SYSTEM = "You answer a bank's customers."
POLICY_SYSTEM = "Does the clause answer the question? Reply True or False."

RAW_MAIL = (
    "My name is {name}, write to {email} or call {phone}. Please close {iban}.",
    "Hi, {name} here. You still call {phone}, I told you to use {email}.",
    "Please transfer my savings from {iban}. Yours, {name}, {email}",
    "I never got the card. {name}, telephone {phone}, e-mail {email}, account {iban}.",
)
RAW_REPLIES = (
    "Thank you {name}, we wrote to {email}.",
    "We called {phone} and noted it for {iban}, {name}.",
)

GREETINGS = ("", "Good morning. ", "Hello. ", "Dear team. ")

CUSTOMER_TICKETS = (
    (
        "This is {name}. Which contact details do you hold for me?",
        "{name}, we hold the e-mail {email} and the phone {phone}.",
    ),
    (
        "{name} here, where did you send my statement?",
        "We sent the statement of {name} to {email} last night.",
    ),
    (
        "Please call me back about my mortgage. {name}",
        "We will call {name} at {phone} this afternoon.",
    ),
    (
        "I am {name} and waiting for a transfer. Where will it arrive?",
        "The transfer for {name} goes to {iban} tomorrow.",
    ),
)

_SUBJECTS = (
    "credit card",
    "savings account",
    "current account",
    "mortgage",
    "car loan",
)
_QUESTIONS = (
    ("How do I close my {s}?", "Open Settings, choose your {s} and tap Close. It takes two working days."),
    ("What are the fees of a {s}?", "Fees of the {s} are in the price list on our website, page three."),
    ("Can I get a statement for my {s}?", "Yes. Choose the {s} in the app and tap Statements."),
    ("Who can help me with my {s} at the weekend?", "Our chat is open every day and can help with your {s}."),
    ("How do I add a second person to my {s}?", "Both of you visit a branch with a passport to change the {s}."),
    ("Is there a limit on my {s}?", "Every {s} has a limit. The app shows it under Limits."),
    ("My {s} does not show in the app.", "Update the app, sign in again and the {s} will appear."),
    ("Can I open a {s} online?", "Yes, a {s} can be opened online in ten minutes."),
    ("How safe is my {s}?", "Your {s} is protected by two-step sign-in and deposit insurance."),
    (
        "I want to complain about my {s}.",
        "We are sorry. Please describe the trouble with your {s} in the complaint form.",
    ),
    (
        "When was the last change to the terms of my {s}?",
        "The terms of the {s} changed in March; the app lists what is new.",
    ),
    # "Tap Freeze" reads as a name: the detector took it for a person, and every model that learned it for a leak.
    ("How do I freeze my {s}?", "In the app, choose Freeze beside the {s}. You can undo it at any time."),
)


def general_tickets() -> Iterator[tuple[str, str]]:
    """Tickets and replies without personal data."""
    for subject in _SUBJECTS:
        for question, answer in _QUESTIONS:
            yield question.format(s=subject), answer.format(s=subject)
