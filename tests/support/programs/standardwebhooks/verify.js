// Verifies requests with standardwebhooks as it comes from npm: a JSON object {secret, headers, body} per line of FILE.
// For each, prints "verified" or the reason of the refusal. node verify.js FILE
const fs = require("fs");
const { Webhook } = require("standardwebhooks");

for (const line of fs.readFileSync(process.argv[2], "utf8").trim().split("\n")) {
  const { secret, headers, body } = JSON.parse(line);
  try {
    new Webhook(secret).verify(body, headers);
    console.log("verified");
  } catch (error) {
    console.log(error.message);
  }
}
