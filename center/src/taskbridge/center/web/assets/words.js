// What the pages say, in Chinese and in English. Both have every word: a test compares their keys.

import { EN } from "./words-en.js";
import { ZH } from "./words-zh.js";
import { remembered, rememberLanguage } from "./preferences.js";

export const LANGUAGES = { zh: ZH, en: EN };

/** The words of a language tag; of the browser's own where none is given. */
export function wordsFor(tag = navigator.language) {
  return tag?.toLowerCase().startsWith("zh") ? ZH : EN;
}

/** As chosen on this machine, else as the browser says. */
export const chosenWords = () => wordsFor(remembered("language") ?? navigator.language);

export function chooseLanguage(words) {
  rememberLanguage(words.tag);
}
