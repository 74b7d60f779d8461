// Prints the Khronos validator's report on a GLB file as JSON. NODE_PATH names the folder of `gltf-validator`.
const fs = require('fs');
const validator = require('gltf-validator');

validator
  .validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])), { maxIssues: 100 })
  .then((report) => process.stdout.write(JSON.stringify(report)))
  .catch((error) => {
    console.error(String(error));
    process.exit(1);
  });
