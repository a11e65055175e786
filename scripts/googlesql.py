"""Analyses GoogleSQL from standard input, statement by statement: `scripts/googlesql check` runs it."""
import sys

import wasmtime
from zetasql.core import wasm_client


class Cached(wasmtime.Config):
    """The analyser is 30 MB of WebAssembly: compiled once."""

    def __init__(self):
        super().__init__()
        self.cache = True


wasm_client.Config = Cached

from zetasql import types  # noqa: E402
from zetasql.api import Analyzer, CatalogBuilder, TableBuilder  # noqa: E402

EXTERNAL = "lake_"


class Dataset:
    """What the statements so far have made."""

    def __init__(self):
        self.language = types.LanguageOptions.maximum_features()
        # BigQuery's types only; INT32 and the like are Google's own.
        self.language.product_mode = types.ProductMode.PRODUCT_EXTERNAL
        # Both of which BigQuery has, and the analyser takes only where it is told.
        self.language.reserved_keywords = ["QUALIFY"]
        partitions = types.LanguageFeature.FEATURE_CREATE_EXTERNAL_TABLE_WITH_PARTITION_COLUMNS
        self.language.enabled_language_features.append(partitions)
        self.tables, self.kinds = {}, {}

    def analyse(self, sql):
        catalog = CatalogBuilder("bigquery")
        for table in self.tables.values():
            catalog.add_table(table)
        functions = types.ZetaSQLBuiltinFunctionOptions(language_options=self.language)
        options = types.AnalyzerOptions(language_options=self.language)
        self.take(Analyzer(options, catalog.with_builtin_functions(functions).build()).analyze_statement(sql))

    def take(self, statement):
        """A table or view that was made is there for those that follow."""
        if not getattr(statement, "name_path", None):
            return
        name = ".".join(statement.name_path)
        # As BigQuery has it: a name that is one thing is not made another, whatever OR REPLACE says.
        kind = self.kinds.setdefault(name, type(statement))
        if kind is not type(statement):
            raise ValueError(f"{name} is not allowed for this operation because it was made by {kind.__name__}")
        if isinstance(statement, types.ResolvedCreateExternalTableStmt):
            dataset, _, table = name.rpartition(".")
            columns = [*self.tables[f"{dataset}.{table.removeprefix(EXTERNAL)}"].column]
            columns += statement.with_partition_columns.column_definition_list
        elif isinstance(statement, types.ResolvedCreateViewStmt):
            columns = [types.SimpleColumn(name=output.name, type=output.column.type) for output in statement.output_column_list]
        else:
            columns = statement.column_definition_list
        table = TableBuilder(name)
        for column in columns:
            table.add_column(column.name, column.type)
        self.tables[name] = table.build()


def main():
    dataset, wrong = Dataset(), 0
    statements = [statement.strip() for statement in sys.stdin.read().split(";\n") if statement.strip()]
    for statement in statements:
        try:
            dataset.analyse(statement.rstrip(";"))
        except Exception as error:  # noqa: BLE001: whatever the analyser refuses
            wrong += 1
            print(f"{error}\nin:\n{statement}\n")
    print(f"{len(statements)} statements, {wrong} wrong; tables: {', '.join(dataset.tables)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
