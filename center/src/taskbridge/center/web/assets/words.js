// What the pages say, in Chinese and in English. Both have every word: a test compares their keys.

import { remembered } from "./preferences.js";
import { EN } from "./words-en.js";
import { ZH } from "./words-zh.js";

/** The words of a language tag; of the browser's own where none is given. */
export const wordsFor = (tag = navigator.language) => (tag?.toLowerCase().startsWith("zh") ? ZH : EN);

/** As chosen on this machine, else as the browser says. */
export const chosenWords = () => wordsFor(remembered("language") ?? undefined);
