// Unpacks the browser, a font and the libraries that it is linked with into TMPDIR.
import chromium, { inflate } from "@sparticuz/chromium";

await chromium.executablePath();
await inflate("node_modules/@sparticuz/chromium/bin/al2023.tar.br");
