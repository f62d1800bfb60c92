/** What the user gave, or the page was given, cannot be used: the message says how to mend it. */
export class InputError extends Error {
  name = "InputError";
}
