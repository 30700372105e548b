// What the volume viewer takes from NiiVue; `build.sh` bundles it into niivue.min.js, global name niivue.
export { NVImage, Niivue } from "@niivue/niivue";
