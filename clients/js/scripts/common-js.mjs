/**
 * The text of a module as CommonJS.
 *
 * It knows the forms of `import` and `export` that the client uses and refuses every other one, so
 * nothing is left out in silence.
 */
export function toCommonJs(path, source) {
  const names = [];
  const text = source
    .replace(/^(import|export) \{([^}]*)\} from ('[^']+');$/gm, (_, kind, list, from) => {
      if (kind === 'export') names.push(...list.split(',').map((name) => name.trim()));
      return `const {${list.replaceAll(' as ', ': ')}} = require(${from});`;
    })
    .replace(/^import \* as (\w+) from ('[^']+');$/gm, 'const $1 = require($2);')
    .replace(/\bawait import\(('[^']+')\)/g, 'require($1)')
    .replace(/^export ((?:async )?function|class|const) (\w+)/gm, (_, kind, name) => {
      names.push(name);
      return `${kind} ${name}`;
    });
  const unknown = /^\s*(import|export)\b.*|.*\bimport(\(|\.meta).*/m.exec(text);
  if (unknown) throw new Error(`${path}: this form is not known here: ${unknown[0].trim()}`);
  return `'use strict';\n${text}\nObject.assign(exports, { ${names.join(', ')} });\n`;
}
