/** Compile-and-cache of native code. */
export { findCompiler, type Compiler } from "./compiler.ts";
export { buildLibrary, type LibraryRecipe } from "./library.ts";
