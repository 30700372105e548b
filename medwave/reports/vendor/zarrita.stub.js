// Stands in for zarrita, which NiiVue reads Zarr stores with and the viewer has no use for: 0.9 instead of 2.3 MB.
const absent = () => { throw new Error("Zarr is left out of this build of NiiVue"); };
export { absent as FetchStore, absent as get, absent as open, absent as root, absent as slice };
