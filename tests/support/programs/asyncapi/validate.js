// Validates AsyncAPI documents as `asyncapi validate` does: by the same parser, with Avro. Prints, for each file that is
// named, a JSON array on a line of its own: what is found, from errors to hints, each with its place in the document.

const { readFileSync } = require("node:fs");
const { AvroSchemaParser } = require("@asyncapi/avro-schema-parser");
const { Parser } = require("@asyncapi/parser");

async function main(paths) {
  const parser = new Parser();
  parser.registerSchemaParser(AvroSchemaParser());
  for (const path of paths) {
    const found = await parser.validate(readFileSync(path, "utf8"));
    console.log(JSON.stringify(found.map((each) => `${each.path.join("/")}: ${each.message} (${each.code})`)));
  }
}

main(process.argv.slice(2));
