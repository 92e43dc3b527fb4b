//! The pages of `compile_server` and `cache_server`, in a real browser.
#![cfg(unix)]

mod browser;
mod of_cache_server;
mod server;

use browser::Browser;
use reqwest::{Client, StatusCode};
use serde_json::json;
use server::Server;
use std::path::Path;

const SHADER: &str = "
@group(0) @binding(0) var<storage, read_write> numbers: array<u32>;

@compute @workgroup_size(64)
fn double(@builtin(global_invocation_id) at: vec3<u32>) {
    numbers[at.x] = numbers[at.x] * 2u;
}
";

/// A remote at which nobody listens.
const GONE: &str = "http://127.0.0.1:9/artifacts";

async fn compile(server: &Server, target: &str, source: String) -> StatusCode {
    let client = Client::builder().no_proxy().build().unwrap();
    let request = client.post(format!("{}/compile/{target}", server.url));
    request.body(source).send().await.unwrap().status()
}

/// Text and controls that do not stand out by 4.5 to 1, as WCAG 2.2 asks for (1.4.3, AA).
const FAINT: &str = "
    const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const [r, g, b] = parts(colour).slice(0, 3).map((part) => {
            const share = part / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (parts(colour)[3] !== 0) return colour;
        }
        return 'rgb(255, 255, 255)';
    };
    const faint = [];
    for (const element of document.querySelectorAll('body *')) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility()) continue;
        const style = getComputedStyle(element);
        const colour = element instanceof SVGElement ? style.fill : style.color;
        const [high, low] = [light(colour), light(ground(element))].sort((a, b) => b - a);
        const contrast = (high + 0.05) / (low + 0.05);
        if (contrast < 4.5) faint.push(`${element.tagName} ${element.textContent}: ${contrast}`);
    }
    return faint;";

/// What a screen reader would not name.
const NAMELESS: &str = "
    const named = (element) => element.getAttribute('aria-label')
        || document.getElementById(element.getAttribute('aria-labelledby'))?.textContent
        || element.caption?.textContent || element.textContent.trim();
    const all = 'button, a, section, svg, [tabindex], table';
    return [...document.querySelectorAll(all)].filter((element) => !named(element))
        .map((element) => element.outerHTML.slice(0, 80));";

/// On a phone and on a desk, light and dark: nothing is cut off, faint or without a name. What is kept
/// of it begins with a prefix.
async fn looks_well(browser: &Browser, prefix: &str) {
    for (width, height) in [(390, 844), (1440, 900)] {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        browser
            .devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
        for scheme in ["light", "dark"] {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser.devtools("Emulation.setEmulatedMedia", media).await;
            let overflow = browser
                .run("return document.documentElement.scrollWidth - innerWidth;")
                .await;
            assert!(overflow.as_i64() <= Some(0), "{width}: wider by {overflow}");
            assert_eq!(browser.run(FAINT).await, json!([]), "{width} {scheme}");
            assert_eq!(browser.run(NAMELESS).await, json!([]), "{width} {scheme}");
            keep(browser, &format!("{prefix}{width}-{scheme}")).await;
        }
    }
}

#[tokio::test]
async fn the_page_shows_what_the_server_does() {
    let folder = tempfile::tempdir().unwrap();
    let Some(browser) = Browser::start().await else {
        return;
    };
    let server = Server::start(folder.path(), GONE, &[]);
    for target in ["spirv", "spirv", "msl"] {
        assert_eq!(
            compile(&server, target, SHADER.to_owned()).await,
            StatusCode::OK
        );
    }
    let hostile = "<img src=x onerror=alert(1)>".to_owned();
    let refused = compile(&server, "spirv", hostile).await;
    assert_eq!(refused, StatusCode::UNPROCESSABLE_ENTITY);

    browser.open(&format!("{}/", server.url)).await;
    // The window in which these were answered is over.
    browser
        .wait_for("document.querySelector('#figures dd')?.textContent === '3'")
        .await;
    let requests = browser
        .run(
            "return [...document.querySelectorAll('#requests tbody tr')].map((row) =>
              [1, 2, 3].map((cell) => row.cells[cell].textContent).join(' '));",
        )
        .await;
    let expected = [
        "spirv 422 –",
        "msl 200 compiled",
        "spirv 200 memory",
        "spirv 200 compiled",
    ];
    assert_eq!(requests, json!(expected));
    let tiers = browser
        .run(
            "return [...document.querySelectorAll('#tiers tbody tr')].map((row) =>
              [0, 1, 9].map((cell) => row.cells[cell].textContent).join(' '));",
        )
        .await;
    let tiers = tiers.as_array().unwrap();
    let [memory, disk, remote] = &tiers[..] else {
        panic!("{tiers:?}");
    };
    assert_eq!((memory, disk), (&json!("memory 1 –"), &json!("disk 0 –")));
    assert!(
        remote.as_str().unwrap().starts_with("remote 0 "),
        "{remote}"
    );
    looks_well(&browser, "").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn the_page_is_used_by_keyboard_and_says_when_the_server_is_gone() {
    const TAB: &str = "\u{E004}";
    const ENTER: &str = "\u{E007}";
    let folder = tempfile::tempdir().unwrap();
    let Some(browser) = Browser::start().await else {
        return;
    };
    let server = Server::start(folder.path(), GONE, &[]);
    browser.open(&format!("{}/", server.url)).await;
    browser
        .wait_for("document.getElementById('state').textContent === 'Up.'")
        .await;

    let focused = "return [document.activeElement.id || document.activeElement.ariaLabel,
                           getComputedStyle(document.activeElement).outlineStyle];";
    let mut order = Vec::new();
    for _ in 0..4 {
        browser.press(TAB).await;
        let focus = browser.run(focused).await;
        assert_eq!(focus[1], "solid", "the focus is not seen: {focus}");
        order.push(focus[0].as_str().unwrap().to_owned());
    }
    let expected = ["pause", "Times by source", "Tiers", "The last requests"];
    assert_eq!(order, expected);

    browser
        .run("document.getElementById('pause').focus();")
        .await;
    browser.press(ENTER).await;
    let state = "return [document.getElementById('state').textContent,
                         document.getElementById('pause').ariaPressed];";
    assert_eq!(browser.run(state).await, json!(["Paused.", "true"]));
    browser.press(ENTER).await;
    browser
        .wait_for("document.getElementById('state').textContent === 'Up.'")
        .await;
    assert_eq!(browser.console().await, Vec::<String>::new());

    drop(server);
    browser
        .wait_for("document.getElementById('state').className === 'bad'")
        .await;
    let told = browser.run(state).await;
    assert!(
        told[0].as_str().unwrap().contains("does not answer"),
        "{told}"
    );
    browser.close().await;
}

/// Keeps a picture for people to look at, where `STATUS_PAGE_PICTURES` names a folder.
async fn keep(browser: &Browser, name: &str) {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let Some(folder) = std::env::var_os("STATUS_PAGE_PICTURES") else {
        return;
    };
    let picture = STANDARD.decode(browser.screenshot().await).unwrap();
    std::fs::write(Path::new(&folder).join(format!("{name}.png")), picture).unwrap();
}
