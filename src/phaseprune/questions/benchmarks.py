"""The named benchmarks: one declarative entry each. To add one, add an entry.

Prompts are those of lm-evaluation-harness 0.4.13's task of the name in ``lm_eval``, so that figures
can be compared; tests/test_benchmarks.py holds them against lm-eval's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from phaseprune.questions import schemas
from phaseprune.questions.question import Prompt
from phaseprune.questions.schemas import Schema

#: MMLU's groups of subjects, by the names of its configurations.
MMLU_GROUPS: dict[str, tuple[str, ...]] = {
    "stem": (
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
    "social_sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "other": (
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
}

#: C-Eval's subjects: name of the configuration -> name in its prompt.
CEVAL_SUBJECTS: dict[str, str] = {
    "accountant": "注册会计师",
    "advanced_mathematics": "高等数学",
    "art_studies": "艺术学",
    "basic_medicine": "基础医学",
    "business_administration": "工商管理",
    "chinese_language_and_literature": "中国语言文学",
    "civil_servant": "公务员",
    "clinical_medicine": "临床医学",
    "college_chemistry": "大学化学",
    "college_economics": "大学经济学",
    "college_physics": "大学物理",
    "college_programming": "大学编程",
    "computer_architecture": "计算机组成",
    "computer_network": "计算机网络",
    "discrete_mathematics": "离散数学",
    "education_science": "教育学",
    "electrical_engineer": "注册电气工程师",
    "environmental_impact_assessment_engineer": "环境影响评价工程师",
    "fire_engineer": "注册消防工程师",
    "high_school_biology": "高中生物",
    "high_school_chemistry": "高中化学",
    "high_school_chinese": "高中语文",
    "high_school_geography": "高中地理",
    "high_school_history": "高中历史",
    "high_school_mathematics": "高中数学",
    "high_school_physics": "高中物理",
    "high_school_politics": "高中政治",
    "ideological_and_moral_cultivation": "思想道德修养与法律基础",
    "law": "法学",
    "legal_professional": "法律职业资格",
    "logic": "逻辑学",
    "mao_zedong_thought": "毛泽东思想和中国特色社会主义理论体系概论",
    "marxism": "马克思主义基本原理",
    "metrology_engineer": "注册计量师",
    "middle_school_biology": "初中生物",
    "middle_school_chemistry": "初中化学",
    "middle_school_geography": "初中地理",
    "middle_school_history": "初中历史",
    "middle_school_mathematics": "初中数学",
    "middle_school_physics": "初中物理",
    "middle_school_politics": "初中政治",
    "modern_chinese_history": "近代史纲要",
    "operating_system": "操作系统",
    "physician": "医师资格",
    "plant_protection": "植物保护",
    "probability_and_statistics": "概率统计",
    "professional_tour_guide": "导游资格",
    "sports_science": "体育学",
    "tax_accountant": "税务师",
    "teacher_qualification": "教师资格",
    "urban_and_rural_planner": "注册城乡规划师",
    "veterinary_medicine": "兽医学",
}

#: MMLU-Pro's categories, as its rows name them.
MMLU_PRO_CATEGORIES = (
    "biology",
    "business",
    "chemistry",
    "computer science",
    "economics",
    "engineering",
    "health",
    "history",
    "law",
    "math",
    "other",
    "philosophy",
    "physics",
    "psychology",
)


@dataclass(frozen=True)
class Benchmark:
    """One data set of the hub and how its questions are put.

    Attributes:
        hub: the data set's id.
        about: one short line.
        licence: of the data.
        split: the split that is scored.
        schema: what its rows are.
        configuration: of the data set, None for its only one.
        shots_split: where solved examples are from, None where there is nothing to take them from.
        scoring: the default scoring.
        prompt: its templates.
        labels: the default style of labels.
        groups: names that stand for several subjects; ``NAME_GROUP`` is a task too.
        subjects: the subjects; ``NAME_SUBJECT`` is a task too.
        subject_column: where a row says its subject; None where each subject is a configuration.
        lm_eval: lm-eval's name of the same task.
        comparable: which figure of lm-eval's equals ours, or why none does.
    """

    hub: str
    about: str
    licence: str
    split: str
    schema: Schema
    configuration: str | None = None
    shots_split: str | None = "train"
    scoring: str = "text"
    prompt: Prompt = Prompt("arc")
    labels: str = "A"
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    subjects: tuple[str, ...] = ()
    subject_column: str | None = None
    lm_eval: str | None = None
    comparable: str = "acc"

    @property
    def one_place(self) -> bool:
        """Whether the right option always stands at the same place in the data.

        Options are then shuffled by seed where their order is shown to the model.
        """
        return self.schema.one_place


_PLAIN = Prompt("plain", text="{question}")
_ANSWER = Prompt("answer", text="{question}\nAnswer:")
_CHOICES = "{question}\nChoices:\n{options}\nAnswer:"
_TRUTHFUL = (
    "Q: What is human life expectancy in the United States?\n"
    "A: Human life expectancy in the United States is 78 years.\n\n"
    "Q: Who was president of the United States in 1955?\n"
    "A: Dwight D. Eisenhower was president of the United States in 1955.\n\n"
    "Q: Which party did he belong to?\n"
    "A: He belonged to the Republican Party.\n\n"
    "Q: What is the square root of banana?\n"
    "A: I have no comment.\n\n"
    "Q: How does a telescope work?\n"
    "A: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\n"
    "Q: Where were the 1992 Olympics held?\n"
    "A: The 1992 Olympics were held in Barcelona, Spain.\n\n"
)
_GPQA = dict(
    hub="Idavidrein/gpqa",
    licence="CC BY 4.0, gated",
    split="train",
    schema=schemas.GPQA,
    shots_split=None,
    scoring="letter",
    labels="(A)",
    prompt=Prompt(
        "gpqa",
        strip=False,
        letter="What is the correct answer to this question:" + _CHOICES,
    ),
    comparable="none: lm-eval shuffles the options by another generator",
)

BENCHMARKS: dict[str, Benchmark] = {
    "arc_easy": Benchmark(
        "allenai/ai2_arc",
        "grade-school science, the easy part",
        "CC BY-SA 4.0",
        "test",
        schemas.ARC,
        configuration="ARC-Easy",
        lm_eval="arc_easy",
        comparable="acc, acc_norm",
    ),
    "arc_challenge": Benchmark(
        "allenai/ai2_arc",
        "grade-school science, the hard part",
        "CC BY-SA 4.0",
        "test",
        schemas.ARC,
        configuration="ARC-Challenge",
        lm_eval="arc_challenge",
        comparable="acc, acc_norm",
    ),
    "hellaswag": Benchmark(
        "Rowan/hellaswag",
        "which ending goes on",
        "MIT",
        "validation",
        schemas.HELLASWAG,
        prompt=_PLAIN,
        lm_eval="hellaswag",
        comparable="acc, acc_norm",
    ),
    "mmlu": Benchmark(
        "cais/mmlu",
        "57 subjects of school and profession",
        "MIT",
        "test",
        schemas.MMLU,
        configuration="all",
        shots_split="dev",
        scoring="letter",
        prompt=Prompt(
            "mmlu-subject",
            description="The following are multiple choice questions "
            "(with answers) about {group}.\n\n",
        ),
        groups=MMLU_GROUPS,
        subjects=tuple(sorted(s for g in MMLU_GROUPS.values() for s in g)),
        subject_column="subject",
        lm_eval="mmlu",
    ),
    "mmlu_pro": Benchmark(
        "TIGER-Lab/MMLU-Pro",
        "MMLU made harder, up to 10 options",
        "MIT",
        "test",
        schemas.MMLU_PRO,
        shots_split="validation",
        scoring="letter",
        prompt=Prompt(
            "mmlu-pro",
            description="The following are multiple choice questions "
            "(with answers) about {group}.\n\n",
        ),
        subjects=MMLU_PRO_CATEGORIES,
        subject_column="category",
        comparable="none: lm-eval generates a chain of thought",
    ),
    "commonsense_qa": Benchmark(
        "tau/commonsense_qa",
        "everyday knowledge",
        "MIT",
        "validation",
        schemas.COMMONSENSE_QA,
        scoring="letter",
        prompt=Prompt("commonsense_qa", letter="Question: {question}\n{options}\nAnswer:"),
        lm_eval="commonsense_qa",
    ),
    "openbookqa": Benchmark(
        "allenai/openbookqa",
        "elementary science facts",
        "unclear",
        "test",
        schemas.OPENBOOKQA,
        configuration="main",
        prompt=_PLAIN,
        lm_eval="openbookqa",
        comparable="acc, acc_norm",
    ),
    "piqa": Benchmark(
        "baber/piqa",
        "how to do things in the physical world",
        "AFL-3.0",
        "validation",
        schemas.PIQA,
        lm_eval="piqa",
        comparable="acc, acc_norm",
    ),
    "social_iqa": Benchmark(
        "lighteval/siqa",
        "what people feel and do next",
        "CC BY 4.0",
        "validation",
        schemas.SOCIAL_IQA,
        prompt=Prompt("social_iqa", text="Q: {question}\nA:"),
        lm_eval="social_iqa",
    ),
    "winogrande": Benchmark(
        "allenai/winogrande",
        "whom a pronoun means",
        "Apache-2.0",
        "validation",
        schemas.WINOGRANDE,
        configuration="winogrande_xl",
        prompt=Prompt("winogrande"),
        lm_eval="winogrande",
    ),
    "boolq": Benchmark(
        "aps/super_glue",
        "yes or no about a passage",
        "CC BY-SA 3.0",
        "validation",
        schemas.BOOLQ,
        configuration="boolq",
        prompt=_ANSWER,
        lm_eval="boolq",
    ),
    "race": Benchmark(
        "EleutherAI/race",
        "reading comprehension, high school",
        "research only",
        "test",
        schemas.RACE,
        configuration="high",
        shots_split=None,
        prompt=_PLAIN,
        lm_eval="race",
    ),
    "sciq": Benchmark(
        "allenai/sciq",
        "science with a supporting passage",
        "CC BY-NC 3.0",
        "test",
        schemas.SCIQ,
        prompt=_ANSWER,
        lm_eval="sciq",
        comparable="acc, acc_norm",
    ),
    "copa": Benchmark(
        "aps/super_glue",
        "cause or effect",
        "BSD 2-Clause",
        "validation",
        schemas.COPA,
        configuration="copa",
        prompt=_PLAIN,
        lm_eval="copa",
    ),
    "truthfulqa_mc1": Benchmark(
        "truthfulqa/truthful_qa",
        "truth against common errors",
        "Apache-2.0",
        "validation",
        schemas.TRUTHFULQA,
        configuration="multiple_choice",
        shots_split=None,
        prompt=Prompt("truthfulqa", text=_TRUTHFUL + "Q: {question}\nA:"),
        lm_eval="truthfulqa_mc1",
    ),
    "logiqa": Benchmark(
        "EleutherAI/logiqa",
        "logic in examination questions",
        "CC BY-NC-SA 4.0",
        "test",
        schemas.LOGIQA,
        configuration="logiqa",
        prompt=Prompt("logiqa", text=_CHOICES, letter=_CHOICES),
        lm_eval="logiqa",
        comparable="acc, acc_norm",
    ),
    "gpqa": Benchmark(about="graduate science, main set", configuration="gpqa_main", **_GPQA),
    "gpqa_diamond": Benchmark(
        about="graduate science, diamond set", configuration="gpqa_diamond", **_GPQA
    ),
    "medmcqa": Benchmark(
        "openlifescienceai/medmcqa",
        "medical entrance examinations",
        "Apache-2.0",
        "validation",
        schemas.MEDMCQA,
        scoring="letter",
        prompt=Prompt("medmcqa", letter="Question: " + _CHOICES, strip=False),
        lm_eval="medmcqa",
    ),
    "ceval": Benchmark(
        "ceval/ceval-exam",
        "52 subjects in Chinese",
        "CC BY-NC-SA 4.0",
        "val",
        schemas.CEVAL,
        shots_split="dev",
        scoring="letter",
        prompt=Prompt(
            "ceval",
            letter="{question}\n{options}\n答案：",
            groups=CEVAL_SUBJECTS,
            description="以下是中国关于{group}的单项选择题，请选出其中的正确答案。\n\n",
        ),
        subjects=tuple(CEVAL_SUBJECTS),
        lm_eval="ceval-valid",
    ),
}


def find_benchmark(name: str) -> tuple[Benchmark, tuple[str, ...]] | None:
    """The entry of a task's name and the subjects that the name stands for; None for no entry."""
    if name in BENCHMARKS:
        return BENCHMARKS[name], BENCHMARKS[name].subjects
    for known, entry in BENCHMARKS.items():
        part = name.removeprefix(f"{known}_").replace(" ", "_")
        by_name = {subject.replace(" ", "_"): subject for subject in entry.subjects}
        if part in entry.groups:
            return entry, entry.groups[part]
        if part != name and part in by_name:
            return entry, (by_name[part],)
    return None


def task_names() -> list[str]:
    """Every name of the table: benchmarks, groups and subjects."""
    names = []
    for name, entry in BENCHMARKS.items():
        parts = [*entry.groups, *entry.subjects]
        names += [name, *(f"{name}_{part.replace(' ', '_')}" for part in parts)]
    return names
