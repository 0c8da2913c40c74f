// Unpacks the Chromium of the npm package into $TMPDIR, once.
import chromium from '@sparticuz/chromium';

console.log(await chromium.executablePath());
