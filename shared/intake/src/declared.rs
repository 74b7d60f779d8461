//! What the caller says that the upload is, and whether the content agrees.
//!
//! A claim is read from the file name's extension and from the `Content-Type`. A missing claim, an unknown
//! extension and the generic types (`application/octet-stream`, `image/*`) claim nothing. A name is only a
//! name: whatever it contains, all that is read is what follows its last dot.

use crate::{DeclaredBy, ImageFormat, Rejection};

/// What the caller declared about the upload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Declared<'a> {
    /// The file name of the multipart part, or what else names the upload.
    pub file_name: Option<&'a str>,
    /// The `Content-Type` of the part or the request, parameters included.
    pub content_type: Option<&'a str>,
}

/// What one declaration claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Claim {
    Nothing,
    Image(ImageFormat),
    Other(&'static str),
}

/// The claims of a [`Declared`], without borrowing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Claims {
    file_name: Claim,
    content_type: Claim,
}

impl Claims {
    pub(crate) fn read(declared: Declared<'_>) -> Self {
        Self {
            file_name: declared.file_name.map_or(Claim::Nothing, claim_of_name),
            content_type: declared.content_type.map_or(Claim::Nothing, claim_of_content_type),
        }
    }

    /// Compares the claims with what the content is.
    pub(crate) fn agree_with(&self, content: ImageFormat) -> Result<(), Rejection> {
        for (by, claim) in
            [(DeclaredBy::ContentType, self.content_type), (DeclaredBy::FileName, self.file_name)]
        {
            let declared = match claim {
                Claim::Nothing => continue,
                Claim::Image(format) if format == content => continue,
                Claim::Image(format) => format.name(),
                Claim::Other(name) => name,
            };
            return Err(Rejection::DeclarationMismatch { content, by, declared });
        }
        Ok(())
    }
}

/// Longest extension that is looked up; the longest known one is shorter.
const EXTENSION_BYTES_MAX: usize = 8;

/// Extensions of other formats, by what they would open as.
const OTHER_EXTENSIONS: &[(&str, &[&str])] = &[
    ("a GIF picture", &["gif"]),
    ("a BMP picture", &["bmp", "dib"]),
    ("a TIFF picture", &["tif", "tiff", "dng", "nef", "cr2", "arw"]),
    ("an SVG picture", &["svg", "svgz"]),
    ("a HEIC picture", &["heic", "heif", "hif"]),
    ("an AVIF picture", &["avif", "avifs"]),
    (
        "another picture format",
        &[
            "jp2", "j2k", "jpx", "jxl", "jxr", "ico", "cur", "psd", "tga", "pcx", "pnm", "pbm", "pgm", "ppm",
            "pam", "pfm", "exr", "hdr", "qoi", "dds", "ktx", "ktx2", "sgi", "xbm", "xpm", "xcf", "fli",
            "flc", "mng", "jng", "wmf", "emf", "eps", "ai",
        ],
    ),
    ("a film", &["mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "wmv", "flv", "3gp", "ogv", "ts"]),
    ("a sound file", &["mp3", "wav", "ogg", "oga", "opus", "flac", "m4a", "aac", "wma", "mid", "midi"]),
    (
        "a document",
        &[
            "pdf", "ps", "rtf", "doc", "docx", "docm", "xls", "xlsx", "xlsm", "ppt", "pptx", "odt", "ods",
            "odp", "epub", "txt", "md", "csv", "json", "xml", "yaml", "yml", "toml", "log", "ini",
        ],
    ),
    ("a web page", &["html", "htm", "xhtml", "shtml", "mht", "css"]),
    (
        "a script",
        &[
            "js", "mjs", "cjs", "php", "php3", "php4", "php5", "php7", "phtml", "phar", "asp", "aspx", "jsp",
            "jspx", "cgi", "pl", "py", "rb", "lua", "sh", "bash", "zsh", "ps1", "bat", "cmd", "vbs", "vbe",
            "wsf", "hta", "htaccess",
        ],
    ),
    (
        "a program",
        &[
            "exe", "dll", "com", "scr", "msi", "sys", "so", "dylib", "elf", "app", "apk", "jar", "war",
            "class", "wasm", "deb", "rpm", "dmg", "lnk", "swf",
        ],
    ),
    ("an archive", &["zip", "7z", "rar", "tar", "gz", "tgz", "bz2", "xz", "zst", "lz4", "arj", "cab", "iso"]),
    ("a 3D model", &["glb", "gltf", "obj", "stl", "ply", "fbx", "usdz", "3ds", "blend"]),
];

fn claim_of_name(file_name: &str) -> Claim {
    let base = file_name.rsplit(['/', '\\']).next().unwrap_or(file_name);
    let Some((_, extension)) = base.trim_end_matches(['.', ' ', '\0']).rsplit_once('.') else {
        return Claim::Nothing;
    };
    if extension.len() > EXTENSION_BYTES_MAX {
        return Claim::Nothing;
    }
    let extension = extension.to_ascii_lowercase();
    match extension.as_str() {
        "jpg" | "jpeg" | "jpe" | "jfif" | "jif" | "jfi" | "pjpeg" | "pjp" => {
            return Claim::Image(ImageFormat::Jpeg);
        }
        "png" | "apng" => return Claim::Image(ImageFormat::Png),
        "webp" => return Claim::Image(ImageFormat::Webp),
        _ => {}
    }
    let known = OTHER_EXTENSIONS.iter().find(|(_, extensions)| extensions.contains(&extension.as_str()));
    known.map_or(Claim::Nothing, |(name, _)| Claim::Other(name))
}

fn claim_of_content_type(content_type: &str) -> Claim {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        ""
        | "application/octet-stream"
        | "binary/octet-stream"
        | "application/x-binary"
        | "image/*"
        | "*/*" => Claim::Nothing,
        "image/jpeg" | "image/jpg" | "image/pjpeg" | "image/jfif" | "image/x-jpeg" => {
            Claim::Image(ImageFormat::Jpeg)
        }
        "image/png" | "image/x-png" | "image/apng" | "image/vnd.mozilla.apng" => {
            Claim::Image(ImageFormat::Png)
        }
        "image/webp" | "image/x-webp" => Claim::Image(ImageFormat::Webp),
        "image/gif" => Claim::Other("a GIF picture"),
        "image/bmp" | "image/x-bmp" | "image/x-ms-bmp" => Claim::Other("a BMP picture"),
        "image/tiff" => Claim::Other("a TIFF picture"),
        "image/svg+xml" => Claim::Other("an SVG picture"),
        "image/heic" | "image/heif" => Claim::Other("a HEIC picture"),
        "image/avif" => Claim::Other("an AVIF picture"),
        image if image.starts_with("image/") => Claim::Other("another picture format"),
        _ => Claim::Other("another type"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file_name: &str, content_type: &str, refused_by: Option<DeclaredBy>) {
        let declared = Declared { file_name: Some(file_name), content_type: Some(content_type) };
        let refused = match Claims::read(declared).agree_with(ImageFormat::Jpeg) {
            Ok(()) => None,
            Err(Rejection::DeclarationMismatch { by, .. }) => Some(by),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(refused, refused_by, "{file_name:?} {content_type:?}");
    }

    #[test]
    fn agreeing_and_missing_claims_pass() {
        check("chair.jpg", "image/jpeg", None);
        check("CHAIR.JPEG", "Image/JPEG; charset=binary", None);
        check("chair.jfif", "image/pjpeg", None);
        check("chair", "application/octet-stream", None);
        check("", "", None);
        check("chair.png.jpg", " image/jpg ", None);
        check("chair.tmp", "image/*", None);
        let nothing = Declared::default();
        assert_eq!(Claims::read(nothing).agree_with(ImageFormat::Webp), Ok(()));
    }

    #[test]
    fn a_claim_of_another_type_is_refused() {
        check("chair.png", "image/jpeg", Some(DeclaredBy::FileName));
        check("chair.jpg.exe", "image/jpeg", Some(DeclaredBy::FileName));
        check("chair.php", "", Some(DeclaredBy::FileName));
        check("chair.jpg", "image/png", Some(DeclaredBy::ContentType));
        check("chair.jpg", "text/html", Some(DeclaredBy::ContentType));
        check("chair.jpg", "image/x-unheard-of", Some(DeclaredBy::ContentType));
        check("chair.jpg", "image", Some(DeclaredBy::ContentType));
    }

    #[test]
    fn hostile_names_are_only_names() {
        for name in [
            "../../etc/passwd",
            "..\\..\\boot.jpg",
            "a\0.jpg",
            "\u{202e}gpj.exe\u{202c}.jpg",
            "CON.jpg",
            "....",
            ".",
            "a.jpg\0",
            "a.jpg. . ",
            "'; DROP TABLE jobs;--.jpg",
            "<img src=x>.jpg",
            "%2e%2e%2f.jpg",
            "\u{1F4A9}",
        ] {
            check(name, "image/jpeg", None);
        }
        check(&format!("{}.jpg", "a".repeat(100_000)), "image/jpeg", None);
        check(&format!("a.{}", "j".repeat(100_000)), "image/jpeg", None);
    }
}
