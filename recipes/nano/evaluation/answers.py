"""How often answers are right, and whether both ways to ask give the same one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from recipes.nano.evaluation.questions import Question

Answers = Mapping[str, str]  # by the question's name


@dataclass(frozen=True)
class ClassFigures:
    """Of the questions of one class. `same`: word for word, right or wrong."""

    of_class: str
    asked: int
    right_by_transformers: int
    right_by_antiphon: int
    same: int

    @property
    def right_share(self) -> float:
        """By transformers alone."""
        return self.right_by_transformers / self.asked


def class_figures(questions: Sequence[Question], by_transformers: Answers, by_antiphon: Answers) -> list[ClassFigures]:
    groups: dict[str, list[Question]] = {}
    for question in questions:
        groups.setdefault(question.of_class, []).append(question)
    return [_figures(name, of_class, by_transformers, by_antiphon) for name, of_class in groups.items()]


def is_right(question: Question, answer: str) -> bool:
    return answer.strip() == question.expected


def _figures(
    of_class: str, questions: Sequence[Question], by_transformers: Answers, by_antiphon: Answers
) -> ClassFigures:
    return ClassFigures(
        of_class,
        asked=len(questions),
        right_by_transformers=sum(is_right(one, by_transformers[one.name]) for one in questions),
        right_by_antiphon=sum(is_right(one, by_antiphon[one.name]) for one in questions),
        same=sum(by_transformers[one.name] == by_antiphon[one.name] for one in questions),
    )
