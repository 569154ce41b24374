from django.apps import AppConfig
from django.db.models.signals import post_migrate


class ResearchConfig(AppConfig):
    name = "research"
    verbose_name = "Research"

    def ready(self) -> None:
        from research.models import doors, lesson_words

        doors.watch()
        post_migrate.connect(lesson_words.after_migrate, sender=self)
