from django.db import migrations, models


def all_of_the_catalogue(apps, schema_editor):
    """Every idea there is came from the catalogue, which ships with the lab."""
    for name in ("Idea", "Candidate", "Experiment"):
        apps.get_model("research", name).objects.update(trusted=True)


class Migration(migrations.Migration):

    dependencies = [
        ('research', '0004_named_rules'),
    ]

    operations = [
        migrations.AddField(
            model_name='candidate',
            name='trusted',
            field=models.BooleanField(default=False, help_text='all its code, what it stands on too, ships with the lab'),
        ),
        migrations.AddField(
            model_name='experiment',
            name='trusted',
            field=models.BooleanField(default=False, help_text='the code of both arms ships with the lab'),
        ),
        migrations.AddField(
            model_name='idea',
            name='trusted',
            field=models.BooleanField(default=False, help_text='what it adds is code that ships with the lab'),
        ),
        migrations.RunPython(all_of_the_catalogue, migrations.RunPython.noop),
    ]
