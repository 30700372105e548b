// What the 3-D view of the reports takes from three.js; `build.sh` bundles it into three.min.js, global name THREE.
export {
  AmbientLight, BackSide, BoxGeometry, BufferAttribute, BufferGeometry, Color, DirectionalLight, EdgesGeometry, Fog,
  Group, LineBasicMaterial, LineSegments, Mesh, MeshBasicMaterial, MeshLambertMaterial, PerspectiveCamera,
  PlaneGeometry, Scene, SphereGeometry, SRGBColorSpace, Texture, Vector3, WebGLRenderer,
} from "three";
export { OrbitControls } from "three/examples/jsm/controls/OrbitControls.js";
